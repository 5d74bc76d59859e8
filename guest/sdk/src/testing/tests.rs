//! What the harness refuses, and how a flow replays.

use serde_json::json;

use super::*;
use crate::bindings::provider::types::{Reason, Reply};
use crate::{Flow, Request, Result, Table, TokenSet, secret};

const NEAR: &str = "https://near.example/token";
const FAR: &str = "https://far.example/token";

/// Does what its `mode` says.
struct Odd;

impl Provider for Odd {
    const NAME: &'static str = "odd";
    const VERSION: &'static str = "1.0.0";
    const SUMMARY: &'static str = "Does what a test needs";
    type Settings = String;

    fn settings(table: &mut Table) -> String {
        table.setting("mode", "What to do").text().required()
    }

    fn needs(_: &String) -> Needs {
        Needs::default()
            .secret("known")
            .destination(NEAR)
            .destination(FAR)
    }

    fn refresh(flow: &mut Flow, _: &Call, mode: &String) -> Result<TokenSet> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let request = match mode.as_str() {
            "elsewhere" => Request::post("https://near.example/tokens"),
            "stranger" => Request::post(NEAR).header("x-key", secret("unknown")),
            "moody" => {
                Request::post(NEAR).query("n", CALLS.fetch_add(1, Ordering::Relaxed).to_string())
            }
            _ => Request::post(NEAR).header("x-key", secret("known")),
        };
        let reply = match flow.try_send(request)? {
            Ok(reply) => reply,
            Err(_) => flow.send(Request::post(FAR))?,
        };
        let mut tokens = reply.tokens()?;
        if mode == "forger" {
            tokens.access_token.handle = "t-1".into();
        }
        Ok(tokens)
    }
}

fn flow(mode: &str) -> Run<Odd> {
    Harness::new(json!({ "mode": mode })).refresh()
}

#[test]
fn an_address_that_cannot_be_reached_makes_room_for_another() {
    let mut flow = flow("plain");
    assert_eq!(flow.sends().url(), NEAR);
    flow.unreachable();
    assert_eq!(flow.sends().url(), FAR);
    flow.answer(200, json!({"access_token": "t-1"}));
    assert_eq!(flow.done().access_token, "t-1");
}

#[test]
fn replies_that_do_not_fit_are_a_refusal_and_no_panic() {
    let mut flow = flow("plain");
    flow.sign("h.c.s");
    let crate::Refusal::Other(reason) = flow.refused() else {
        panic!("nothing else is known")
    };
    assert_eq!(reason.code, "replay_diverged");
}

#[test]
fn replies_beyond_the_last_step_are_not_looked_at() {
    let call = Harness::<Odd>::new(json!({"mode": "plain"})).call;
    let unreached = || Reply::Unreached(Reason::new("connect", ""));
    let outcome = Exported::<Odd>::refresh(call, vec![unreached(), unreached(), unreached()]);
    assert!(matches!(outcome, Err(crate::Refusal::Transient(_))));
}

#[test]
#[should_panic(expected = "is not among the destinations")]
fn a_destination_that_was_not_declared_fails_the_test() {
    flow("elsewhere").sends();
}

#[test]
#[should_panic(expected = "`unknown` is not among the secrets")]
fn a_secret_that_was_not_declared_fails_the_test() {
    flow("stranger").sends();
}

#[test]
#[should_panic(expected = "answers the same question differently")]
fn an_impure_plugin_fails_the_test() {
    flow("moody").sends();
}

#[test]
#[should_panic(expected = "made up the handle")]
fn a_forged_handle_fails_the_test() {
    flow("forger")
        .answer(200, json!({"access_token": "t-1"}))
        .done();
}

#[test]
#[should_panic(expected = "expected tokens")]
fn a_wrong_expectation_says_what_came_instead() {
    flow("plain").done();
}

//! Where a request may go: https, public addresses, and what the operator listed.

use keyfob::model::transport::TransportFault;
use keyfob::settings::AddressBlock;
use keyfob_tests::raw::{RawServer, Say};

use super::*;

fn refused(delivery: Delivery) -> TransportFault {
    match delivery {
        Delivery::NotSent(fault) if fault.kind == FaultKind::Address => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn address_literals_inside_the_network_are_refused_however_they_are_written() {
    let upstream = upstream(&TransportSettings::default());
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "0.0.0.0",
        "10.0.0.1",
        "[fd00:ec2::254]",
    ] {
        refused(
            send(
                &upstream,
                ask(&format!("https://{host}/token?q=hidden")),
                PATIENCE,
            )
            .await,
        );
    }
}

#[tokio::test]
async fn a_metadata_address_is_refused_after_the_lookup_and_the_fix_is_named() {
    let names = Names::at(&["169.254.169.254"]);
    let upstream = named(&TransportSettings::default(), names.clone());
    for request in [
        ask("https://issuer.example/token"),
        with_grant(ask("https://issuer.example/token")),
    ] {
        let fault = refused(send(&upstream, request, PATIENCE).await);
        assert!(
            fault
                .detail
                .contains("add \"169.254.169.254\" to the provider's allow_addresses"),
            "{fault:?}"
        );
    }
    assert_eq!(names.asked(), 2);
}

#[tokio::test]
async fn of_a_mixed_answer_only_the_allowed_addresses_are_dialled() {
    let server = RawServer::start(Say::Nothing).await.expect("a server");
    let settings = TransportSettings {
        allow_addresses: vec![AddressBlock::parse("127.0.0.1").expect("an address")],
        ..TransportSettings::default()
    };
    let names = Names::at(&["10.255.255.1", "127.0.0.1"]);
    let upstream = named(&settings, names.clone());
    let url = format!("https://issuer.example:{}/token", server.address.port());
    let delivery = run_out(&upstream, with_grant(ask(&url)), server.wait_for(1)).await;
    assert_eq!(not_sent(delivery), FaultKind::Timeout);
    assert_eq!((server.lines(), names.asked()), (vec!["TLS".to_owned()], 1));
}

#[tokio::test]
async fn a_name_without_addresses_is_not_sent() {
    let upstream = named(&TransportSettings::default(), Names::at(&[]));
    assert_eq!(
        not_sent(send(&upstream, ask("https://issuer.example/"), PATIENCE).await),
        FaultKind::Name
    );
}

#[tokio::test]
async fn plain_http_reaches_this_machine_only_and_only_when_asked_for() {
    let issuer = issuer();
    refused(
        send(
            &upstream(&TransportSettings::default()),
            ask(issuer.token_url()),
            PATIENCE,
        )
        .await,
    );
    refused(send(&local(), ask("http://issuer.example/token"), PATIENCE).await);
    refused(send(&local(), ask("http://10.0.0.1/token"), PATIENCE).await);
    refused(send(&local(), ask("ftp://issuer.example/token"), PATIENCE).await);
    assert_eq!(issuer.ledger().count(), 0);
    let settings = TransportSettings {
        insecure_http: true,
        ..TransportSettings::default()
    };
    let here = named(&settings, Names::at(&["127.0.0.1"]));
    answered(send(&here, ask(&under_name(&issuer, "localhost")), PATIENCE).await);
}

#[tokio::test]
async fn localhost_is_this_machine_whatever_a_resolver_says() {
    let settings = TransportSettings {
        insecure_http: true,
        ..TransportSettings::default()
    };
    let upstream = named(&settings, Names::at(&["93.184.216.34"]));
    refused(send(&upstream, ask("http://localhost/token"), PATIENCE).await);
}

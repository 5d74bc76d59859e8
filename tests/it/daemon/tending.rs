//! Orders to a store that is not there, is closed, or belongs to somebody else.

use super::store::{SEALED, Vaulted, rewrite};
use super::*;

#[tokio::test]
async fn without_a_file_orders_to_it_say_so() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let daemon = vaulted.launch("").start().await?;
    for order in [
        &["store", "verify"][..],
        &["store", "compact"],
        &["store", "backup", "copy.redb"],
        &["store", "shred", "default", "--yes"],
    ] {
        let words = daemon.cli(order).await?.failed(1)?;
        assert!(words.contains("in memory only"), "{order:?}: {words}");
    }
    let words = daemon
        .cli(&["store", "verify", "--offline"])
        .await?
        .failed(3)?;
    assert!(words.contains("has no [store]"), "{words}");
    let grant = vaulted.grant("x")?;
    let import = ["credentials", "import", "crm", "--grant-file", "-"];
    let said = daemon.cli_with(&import, &grant).await?;
    assert!(said.ok()?.contains("a restart forgets it"));
    daemon.stop().await
}

#[tokio::test]
async fn a_closed_store_is_tended_offline_and_none_is_made_by_the_way() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let mut daemon = vaulted.launch(SEALED).start().await?;
    daemon.hand_over("crm/ann", &vaulted.grant("ann")?).await?;
    daemon
        .hand_over("crm/eve?tenant=other", &vaulted.grant("eve")?)
        .await?;
    daemon.pause().await?;
    let offline = async |order: &[&str]| {
        let order = [&["--json", "store"], order, &["--offline"]].concat();
        daemon.cli(&order).await?.json()
    };
    assert_eq!(offline(&["verify"]).await?["rows"], 2);
    assert!(offline(&["compact"]).await?["bytes_after"].is_u64());
    assert_eq!(
        offline(&["shred", "other", "--yes"]).await?["credentials"],
        1
    );
    assert!(offline(&["backup", "copy.redb"]).await?["bytes"].is_u64());

    const NOW: &str = "sealing_key = { env = \"SEALING_KEY\" }";
    let next = super::store::sealing_key()?;
    daemon.canary().add(&next);
    std::fs::write(daemon.dir().join("next.key"), &next)?;
    rewrite(
        &daemon,
        NOW,
        &format!("{NOW}\nnext_sealing_key = {{ file = \"next.key\" }}"),
    )?;
    assert_eq!(offline(&["rotate-key"]).await?["compacted"], true);
    daemon
        .cli(&["store", "rotate-key", "--offline"])
        .await?
        .failed(1)?;
    // Either key opens it.
    assert_eq!(offline(&["verify"]).await?["rows"], 1);

    rewrite(&daemon, "keyfob.redb", "none.redb")?;
    let words = daemon
        .cli(&["store", "verify", "--offline"])
        .await?
        .failed(1)?;
    assert!(words.contains("there is no store at"), "{words}");
    assert!(!daemon.dir().join("none.redb").exists());
    rewrite(&daemon, "none.redb", "keyfob.redb")?;
    daemon.start_again().await?.stop().await
}

#[tokio::test]
async fn whoever_may_not_deploy_gives_no_orders_to_the_store() -> anyhow::Result<()> {
    let vaulted = Vaulted::set()?;
    let key = random_secret()?;
    let operators =
        format!("{SEALED}\n[admins.op]\nkey = {{ env = \"OP_KEY\" }}\nrole = \"operate\"");
    let launch = vaulted.launch(&operators).secret("OP_KEY", &key);
    let daemon = launch.start().await?;
    let as_op = |order: &'static [&'static str]| [order, &["--key-env", "OP_KEY"]].concat();
    for order in [
        &["store", "verify"][..],
        &["store", "rotate-key"],
        &["store", "shred", "x", "--yes"],
    ] {
        let words = daemon.cli(&as_op(order)).await?.failed(5)?;
        assert!(words.contains("takes the role `deploy`"), "{words}");
    }
    daemon.cli(&as_op(&["credentials", "list"])).await?.ok()?;
    daemon.stop().await
}

//! Orders over the admin socket.

use tokio::sync::mpsc;

use super::*;
use crate::admin::orders::{Act, Ordered};

/// Stands for the control loop.
pub(super) async fn obey(mut ordered: mpsc::Receiver<Ordered>) {
    while let Some((order, answer)) = ordered.recv().await {
        let obeyed = match order.act {
            Act::Ready => Err("there is no such backend".to_owned()),
            act => Ok(vec![format!(
                "{act:?} {} {:?}",
                order.which, order.deadline
            )]),
        };
        let _ = answer.send(obeyed);
    }
}

#[test]
fn orders_are_posted_and_answered_with_what_then_holds() {
    let agent = Agent::start();
    let post = |target: &str| {
        let answer = agent.send("POST", target, "");
        (answer.status().to_owned(), answer.body)
    };
    let expected = r#"["Drain 10.0.0.1:80 of web.file:80 Some(60)"]"#;
    let drain = "/v1/drain?backend=10.0.0.1:80&service=web.file:80&deadline=60";
    assert_eq!(post(drain), ("200".to_owned(), expected.to_owned()));
    let expected = r#"["Maintenance this node None"]"#;
    let node = "/v1/maintenance?node=true";
    assert_eq!(post(node), ("200".to_owned(), expected.to_owned()));
    let expected = r#"["Weight(7) web.1 None"]"#;
    let weight = "/v1/weight?backend=web.1&weight=7";
    assert_eq!(post(weight), ("200".to_owned(), expected.to_owned()));
    let expected = "there is no such backend\n";
    let ready = "/v1/ready?backend=web.2";
    assert_eq!(post(ready), ("409".to_owned(), expected.to_owned()));
    let expected = r#"["Release old.marathon None"]"#;
    let release = "/v1/release?name=old.marathon";
    assert_eq!(post(release), ("200".to_owned(), expected.to_owned()));
    for wrong in [
        "/v1/release",
        "/v1/drain",
        "/v1/weight?backend=a",
        "/v1/drain?backend=a&color=red",
    ] {
        assert_eq!(post(wrong).0, "400", "{wrong}");
    }
    assert_eq!(agent.get("/v1/drain?backend=10.0.0.1:80").status(), "405");
    agent.stop();
}

//! Local sockets do not talk to a backend that is gone.
#![allow(clippy::expect_used, reason = "a test says what it expects")]

use lb_tests::{
    lab::{servers::Server, wait_until},
    stage::{PATIENCE, Stage},
};

fn services(backends: &str) -> String {
    let service = |protocol| {
        format!(
            "- {{address: 10.99.0.1, port: 80, protocol: {protocol}, backends: [{backends}]}}\n"
        )
    };
    format!("services:\n{}{}", service("tcp"), service("udp"))
}

#[test]
fn sockets_of_the_node_are_ended_when_their_backend_goes_and_find_another() {
    let stage = Stage::up(&services("10.77.0.11:80"), &[]);
    let at = "0.0.0.0:80".parse().expect("an address");
    let echo = |n: usize| Server::udp_echo(&stage.servers[n], at, stage.servers[n].name());
    let _echoes = [0, 1].map(|n| echo(n).expect("a server"));
    // Both servers go on serving: nothing but the agent can tell these clients.
    let tcp = "exec 3<>/dev/tcp/10.99.0.1/80; head -c 2 <&3; echo; head -c 1 <&3; \
               exec 3<>/dev/tcp/10.99.0.1/80; head -c 2 <&3; echo; sleep 30";
    let udp = "exec 3<>/dev/udp/10.99.0.1/80; echo >&3; head -c 2 <&3; echo; \
               while echo >&3; do sleep 0.05; done; \
               exec 3<>/dev/udp/10.99.0.1/80; echo >&3; head -c 2 <&3; echo; sleep 30";
    let clients = [tcp, udp].map(|script| {
        let argv = ["bash", "-c", script];
        stage.node.start("client", &argv).expect("started")
    });
    let say = |what: &str| {
        wait_until(what, PATIENCE, || {
            clients.iter().all(|client| client.stdout() == what)
        })
        .unwrap_or_else(|_| {
            let said = clients
                .each_ref()
                .map(|client| client.stdout() + &client.stderr());
            panic!("not {what:?} but {said:?}")
        });
    };
    say("s1\n");
    stage.write(&services("10.77.0.11:80, 10.77.0.12:80"), |status| {
        status["services"][1]["backends"][1].is_object()
    });
    // One that comes changes nothing for them.
    say("s1\n");
    stage.write(&services("10.77.0.12:80"), |status| {
        status["services"][1]["backends"][1].is_null()
    });
    say("s1\ns2\n");
}

//! Requests over the wire.


use tempfile::TempDir;

use super::stand_in::{ENDPOINT, StandIn};

const VARIABLES: [(&str, &str); 4] = [
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "KEY"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
];

#[tokio::test]
async fn an_endpoint_is_that_of_the_flag_of_one_service_or_of_all() {
    let (here, nowhere) = (StandIn::start().await, "http://127.0.0.1:1");
    let (here, home) = (&here, TempDir::new().unwrap());
    let own = [
        "AWS_ENDPOINT_URL_ECS",
        "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING",
    ];
    for (flag, one, all) in [
        (Some(&*here.url), Some(nowhere), Some(nowhere)),
        (None, Some(&*here.url), Some(nowhere)),
        (None, None, Some(&*here.url)),
    ] {
        let mut variables = VARIABLES.to_vec();
        variables.push((ENDPOINT, flag.unwrap_or_default()));
        variables.extend(one.into_iter().flat_map(|url| own.map(|name| (name, url))));
        variables.extend(all.map(|url| ("AWS_ENDPOINT_URL", url)));
        let said = here.ask(home.path(), &variables, "tasks,classic").await;
        assert_eq!(said[0], "KEY us-east-1 ecs", "{variables:?}");
        assert!(said[1].contains("KEY us-east-1"), "{said:?} {variables:?}");
    }
}

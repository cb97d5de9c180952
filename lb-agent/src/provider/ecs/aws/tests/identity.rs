//! Where credentials come from, and what becomes of them.

use std::fs;

use tempfile::TempDir;

use super::stand_in::{StandIn, TOKEN, profile};

const NO_METADATA: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");
const REGION: (&str, &str) = ("AWS_REGION", "us-east-1");

fn file(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// The role of a container is asked for at `place`.
fn of_container(place: &str) -> [(&str, &str); 4] {
    [
        NO_METADATA,
        REGION,
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", place),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN),
    ]
}

#[tokio::test]
async fn variables_say_who_the_agent_is() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    let variables = [
        NO_METADATA,
        REGION,
        ("AWS_ACCESS_KEY_ID", "KEY-OF-VARIABLES"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "session"),
    ];
    let said = aws.ask(home.path(), &variables, "tasks,classic").await;
    assert_eq!(said[0], "KEY-OF-VARIABLES us-east-1 ecs session");
    let signed = "KEY-OF-VARIABLES us-east-1 elasticloadbalancing session";
    assert!(said[1].ends_with(signed), "{said:?}");
}

#[tokio::test]
async fn a_profile_says_who_and_where_the_agent_is() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    let credentials = file(&home, "aws", &profile("KEY-OF-PROFILE"));
    let config = file(&home, "config", "[profile lb]\nregion = eu-west-1\n");
    let variables = [
        NO_METADATA,
        ("AWS_PROFILE", "lb"),
        ("AWS_SHARED_CREDENTIALS_FILE", &credentials),
        ("AWS_CONFIG_FILE", &config),
    ];
    let said = aws.ask(home.path(), &variables, "tasks,classic").await;
    assert_eq!(said[0], "KEY-OF-PROFILE eu-west-1 ecs");
    assert!(said[1].contains("KEY-OF-PROFILE eu-west-1"), "{said:?}");
}

#[tokio::test]
async fn the_containers_role_says_who_the_agent_is() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    aws.state().keys = vec![Some(("KEY-OF-CONTAINER", 3_600))];
    let place = format!("{}/role", aws.url);
    let variables = of_container(&place);
    let said = aws
        .ask(home.path(), &variables, "tasks,tasks,classic")
        .await;
    assert_eq!(said[..2], ["KEY-OF-CONTAINER us-east-1 ecs session"; 2]);
    assert!(said[2].contains("KEY-OF-CONTAINER"), "{said:?}");
    assert_eq!(aws.state().searches, 1, "they are kept");
}

#[tokio::test]
async fn the_instances_role_says_who_and_where_the_agent_is() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    aws.state().keys = vec![Some(("KEY-OF-INSTANCE", 3_600))];
    let variables = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url.as_str())];
    let said = aws.ask(home.path(), &variables, "tasks,classic").await;
    assert_eq!(said[0], "KEY-OF-INSTANCE eu-north-1 ecs session");
    assert!(said[1].contains("KEY-OF-INSTANCE eu-north-1"), "{said:?}");
}

#[tokio::test]
async fn without_credentials_or_a_region_it_is_said() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    let said = aws.ask(home.path(), &[NO_METADATA, REGION], "tasks,tasks,classic");
    let said = said.await;
    assert_eq!(said.len(), 3);
    for said in said {
        assert!(said.contains("no credentials for AWS: "), "{said}");
        let remedy = "; give the agent a role, a profile or variables (docs/ecs.md)";
        assert!(said.ends_with(remedy), "{said}");
    }
    let said = aws.ask(home.path(), &[NO_METADATA], "tasks").await;
    assert!(said[0].starts_with("no region is known: "), "{said:?}");
}

#[tokio::test]
async fn credentials_that_end_are_renewed_before() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    // 5 minutes before the end it is time.
    aws.state().keys = vec![Some(("KEY-1", 302)), Some(("KEY-2", 3_600))];
    let place = format!("{}/role", aws.url);
    let variables = of_container(&place);
    let said = aws
        .ask(home.path(), &variables, "tasks,until=KEY-2,classic")
        .await;
    assert!(said[0].starts_with("KEY-1 "), "{said:?}");
    assert!(said[1].starts_with("KEY-2 "), "{said:?}");
    assert!(said[2].contains("KEY-2 "), "{said:?}");
    assert_eq!(aws.state().searches, 2);
}

#[tokio::test]
async fn while_they_cannot_be_renewed_those_that_are_good_are_used_and_then_none() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    let place = format!("{}/role", aws.url);
    let variables = of_container(&place);
    aws.state().keys = vec![Some(("KEY-1", 200)), None];
    let said = aws.ask(home.path(), &variables, "tasks,tasks").await;
    assert!(
        said.iter().all(|said| said.starts_with("KEY-1 ")),
        "{said:?}"
    );
    assert!(aws.state().searches > 1, "it tried");
    (aws.state().keys, aws.state().searches) = (vec![Some(("KEY-1", 2)), None], 0);
    let said = aws
        .ask(home.path(), &variables, "tasks,until=no credentials")
        .await;
    assert!(said[0].starts_with("KEY-1 "), "{said:?}");
    assert!(said[1].starts_with("no credentials for AWS: "), "{said:?}");
}

#[tokio::test]
async fn a_file_that_is_written_anew_counts_when_aws_doubts_the_old_one() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    aws.state().expired = vec!["KEY-1"];
    let path = file(&home, "aws", &profile("KEY-1"));
    let variables = [
        NO_METADATA,
        REGION,
        ("AWS_PROFILE", "lb"),
        ("AWS_SHARED_CREDENTIALS_FILE", &path),
    ];
    let words = "tasks,tasks,write=KEY-2,tasks,classic";
    let said = aws.ask(home.path(), &variables, words).await;
    let expected = "ListTasks: ExpiredTokenException: The security token is expired; renew the credentials, or set the clock";
    assert_eq!(said[..2], [expected; 2]);
    assert_eq!(said[2], "KEY-2 us-east-1 ecs");
    assert!(said[3].contains("KEY-2 us-east-1"), "{said:?}");
}

#[tokio::test]
async fn a_profile_that_is_missing_may_come_later() {
    let (aws, home) = (StandIn::start().await, TempDir::new().unwrap());
    let path = home.path().join("aws").display().to_string();
    let variables = [
        NO_METADATA,
        REGION,
        ("AWS_PROFILE", "lb"),
        ("AWS_SHARED_CREDENTIALS_FILE", &path),
    ];
    let asked = aws.ask(home.path(), &variables, "tasks,tasks,write=KEY-3,tasks");
    let said = asked.await;
    assert!(said[0].starts_with("no credentials for AWS: "), "{said:?}");
    assert_eq!(said[0], said[1]);
    assert_eq!(said[2], "KEY-3 us-east-1 ecs");
}

//! Load balancers over the wire: what is asked, and what comes of refusals.

use tempfile::TempDir;

use super::stand_in::{ENDPOINT, GROUP, StandIn};

const VARIABLES: [(&str, &str); 4] = [
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_REGION", "us-east-1"),
    ("AWS_ACCESS_KEY_ID", "KEY"),
    ("AWS_SECRET_ACCESS_KEY", "secret"),
];

const CLASSIC: &str = "<R><DescribeLoadBalancersResult><LoadBalancerDescriptions><member>\
    <LoadBalancerName>elb</LoadBalancerName><HealthCheck><Target>TCP:80</Target><Interval>30</Interval></HealthCheck>\
    <ListenerDescriptions><member><Listener><Protocol>TCP</Protocol><LoadBalancerPort>80</LoadBalancerPort>\
    <InstancePort>80</InstancePort></Listener></member></ListenerDescriptions>\
    </member></LoadBalancerDescriptions></DescribeLoadBalancersResult></R>";
const DRAINING: &str = "<R><DescribeLoadBalancerAttributesResult><LoadBalancerAttributes><ConnectionDraining>\
    <Enabled>true</Enabled><Timeout>77</Timeout></ConnectionDraining></LoadBalancerAttributes>\
    </DescribeLoadBalancerAttributesResult></R>";
const TARGETS: &str = "<R><DescribeTargetGroupsResult><TargetGroups><member><TargetGroupName>web-tg</TargetGroupName>\
    <Protocol>HTTP</Protocol><HealthCheckProtocol>HTTP</HealthCheckProtocol></member></TargetGroups>\
    </DescribeTargetGroupsResult></R>";
const DELAY: &str = "<R><DescribeTargetGroupAttributesResult><Attributes><member>\
    <Key>deregistration_delay.timeout_seconds</Key><Value>88</Value></member></Attributes>\
    </DescribeTargetGroupAttributesResult></R>";

fn error(status: u16, code: &str) -> (u16, String) {
    let text = format!(
        "<ErrorResponse><Error><Code>{code}</Code><Message>why</Message></Error></ErrorResponse>"
    );
    (status, text)
}

/// What comes of asking about both kinds, where attributes are answered so.
async fn both(classic: (u16, String), group: (u16, String)) -> (StandIn, Vec<String>) {
    let aws = StandIn::start().await;
    aws.state().answers = [
        ("DescribeLoadBalancers", (200, CLASSIC.to_owned())),
        ("DescribeLoadBalancerAttributes", classic),
        ("DescribeTargetGroups", (200, TARGETS.to_owned())),
        ("DescribeTargetGroupAttributes", group),
    ]
    .into();
    let home = TempDir::new().unwrap();
    let said = aws.ask(home.path(), &VARIABLES, "classic,group").await;
    (aws, said)
}

#[tokio::test]
async fn attributes_are_one_request_each() {
    let (aws, said) = both((200, DRAINING.to_owned()), (200, DELAY.to_owned())).await;
    assert!(said[0].contains("drain: Some(77)"), "{said:?}");
    assert!(said[1].contains("drain: Some(88)"), "{said:?}");
    assert!(GROUP.contains("/web-tg/"));
    let actions = &aws.state().actions;
    assert_eq!(
        *actions,
        [
            "DescribeLoadBalancers",
            "DescribeLoadBalancerAttributes",
            "DescribeTargetGroups",
            "DescribeTargetGroupAttributes"
        ]
    );
}

#[tokio::test]
async fn without_the_permission_for_attributes_all_else_is_known() {
    let denied = error(403, "AccessDenied");
    let (_, said) = both(denied.clone(), denied).await;
    for (said, call) in said.iter().zip([
        "DescribeLoadBalancerAttributes",
        "DescribeTargetGroupAttributes",
    ]) {
        let why = format!(
            "refused: Some(\"{call}: AccessDenied: why; the role of this node must allow it (docs/ecs.md)\")"
        );
        assert!(said.contains(&why), "{said}");
        assert!(said.contains("check: Some("), "{said}");
    }
}

#[tokio::test]
async fn attributes_that_cannot_be_read_for_now_leave_what_was_known() {
    for (answer, why) in [
        (error(400, "Throttling"), "Throttled: "),
        (error(500, "InternalFailure"), "Passing: "),
        (error(403, "ExpiredToken"), "Doubted: "),
        ((200, "<R><half".to_owned()), "the answer cannot be read"),
    ] {
        let (_, said) = both(answer.clone(), answer).await;
        assert!(said.iter().all(|said| said.contains(why)), "{said:?}");
    }
}

/// What a client says to one word, where the query APIs answer so.
async fn said(answers: &[(&'static str, &str)], word: &str) -> (StandIn, String) {
    let aws = StandIn::start().await;
    let answers = answers.iter();
    aws.state().answers = answers
        .map(|(action, xml)| (*action, (200, (*xml).to_owned())))
        .collect();
    let home = TempDir::new().unwrap();
    let mut said = aws.ask(home.path(), &VARIABLES, word).await;
    (aws, said.remove(0))
}

#[tokio::test]
async fn every_page_of_instances_is_asked_for() {
    let page = |id: &str, addr: &str, more: &str| {
        format!(
            "<R><reservationSet><item><instancesSet><item><instanceId>{id}</instanceId>\
             <privateIpAddress>{addr}</privateIpAddress></item></instancesSet></item></reservationSet>{more}</R>"
        )
    };
    let first = page("i-1", "10.0.0.1", "<nextToken>two</nextToken>");
    let second = page("i-2", "10.0.0.2", "");
    let pages = [
        ("DescribeInstances", first.as_str()),
        ("DescribeInstances two", &second),
    ];
    let (_, found) = said(&pages, "addresses").await;
    assert_eq!(found, "{\"i-1\": [10.0.0.1], \"i-2\": [10.0.0.2]}");
    // A server that never ends.
    let endless = [
        ("DescribeInstances", first.as_str()),
        ("DescribeInstances two", &first),
    ];
    let (_, found) = said(&endless, "addresses").await;
    assert_eq!(found, "Passing: DescribeInstances: more than 1000 pages");
}

/// The target group, behind this load balancer.
fn behind(arn: &str) -> String {
    TARGETS.replace(
        "<Protocol>HTTP</Protocol>",
        &format!(
            "<Protocol>TCP</Protocol><LoadBalancerArns><member>{arn}</member></LoadBalancerArns>"
        ),
    )
}

fn balancer(arn: &str, name: &str, kind: &str) -> String {
    format!(
        "<R><DescribeLoadBalancersResult><LoadBalancers><member><LoadBalancerArn>{arn}</LoadBalancerArn>\
         <LoadBalancerName>{name}</LoadBalancerName><Type>{kind}</Type></member></LoadBalancers>\
         </DescribeLoadBalancersResult></R>"
    )
}

#[tokio::test]
async fn a_target_group_that_an_albs_rules_choose_is_said_to_stand_under_its_own_name() {
    // By default it answers with a page of its own.
    let listeners = "<R><DescribeListenersResult><Listeners><member><Port>80</Port><Protocol>HTTP</Protocol>\
        <DefaultActions><member><Type>fixed-response</Type></member></DefaultActions></member></Listeners>\
        </DescribeListenersResult></R>";
    for (kind, is_said) in [("application", true), ("network", false)] {
        let (targets, balancer) = (behind("arn:lb"), balancer("arn:lb", "shop", kind));
        let answers = [
            ("DescribeTargetGroups", targets.as_str()),
            ("DescribeTargetGroupAttributes", DELAY),
            ("DescribeLoadBalancers", &balancer),
            ("DescribeListeners", listeners),
        ];
        let (_, found) = said(&answers, "group").await;
        assert!(found.contains("listeners: []"), "{found}");
        let said = found.contains("shop chooses it by a rule on host or path");
        assert_eq!(said, is_said, "{kind}: {found}");
    }
}

#[tokio::test]
async fn every_page_of_listeners_is_asked_for() {
    let (targets, balancer) = (behind("arn:nlb"), balancer("arn:nlb", "nlb", "network"));
    let page = |port: u16, more: &str| {
        format!(
            "<R><DescribeListenersResult><Listeners><member><Port>{port}</Port><Protocol>TCP</Protocol><DefaultActions>\
             <member><Type>forward</Type><TargetGroupArn>{GROUP}</TargetGroupArn></member></DefaultActions></member>\
             </Listeners>{more}</DescribeListenersResult></R>"
        )
    };
    let (first, second) = (page(80, "<NextMarker>two</NextMarker>"), page(81, ""));
    let answers = [
        ("DescribeTargetGroups", targets.as_str()),
        ("DescribeTargetGroupAttributes", DELAY),
        ("DescribeLoadBalancers", &balancer),
        ("DescribeListeners", &first),
        ("DescribeListeners two", &second),
    ];
    let (aws, found) = said(&answers, "group").await;
    assert_eq!(found.matches("balancer: \"nlb\"").count(), 2, "{found}");
    let actions = &aws.state().actions;
    let pages = actions
        .iter()
        .filter(|action| *action == "DescribeListeners");
    assert_eq!(pages.count(), 2, "{actions:?}");
}

#[tokio::test]
async fn a_queue_is_asked_at_its_own_address() {
    let xml = "<ReceiveMessageResponse><ReceiveMessageResult><Message><ReceiptHandle>r1</ReceiptHandle><Body>{}</Body>\
        </Message></ReceiveMessageResult></ReceiveMessageResponse>";
    let (_, found) = said(&[("ReceiveMessage", xml)], "events").await;
    assert_eq!(found, "[Message { receipt: \"r1\", body: \"{}\" }]");
    // The stand-in says who signed, for where and for what.
    let (_, found) = said(&[], "events").await;
    assert!(found.contains("KEY us-east-1 sqs"), "{found}");
}

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

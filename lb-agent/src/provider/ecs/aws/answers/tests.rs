//! Answers as Amazon documents them.

use std::time::Duration;

use super::*;
use crate::{
    catalog::{Check, Port, Probe},
    provider::ecs::model::{Classic, ClassicListener, Manner},
};

fn read<T: serde::de::DeserializeOwned>(xml: &str) -> T {
    quick_xml::de::from_str(xml).unwrap()
}

#[test]
fn instances_have_the_addresses_of_both_families() {
    let answer: Instances = read(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>1</requestId>
  <reservationSet>
    <item><reservationId>r-1</reservationId><groupSet/>
      <instancesSet>
        <item><instanceId>i-1</instanceId><imageId>ami-1</imageId><privateIpAddress>10.77.0.11</privateIpAddress>
          <networkInterfaceSet><item><privateIpAddress>10.9.9.9</privateIpAddress></item></networkInterfaceSet></item>
        <item><instanceId>i-2</instanceId><ipv6Address>fd00::2</ipv6Address></item>
      </instancesSet></item>
    <item><instancesSet><item><instanceId>i-3</instanceId></item></instancesSet></item>
  </reservationSet>
  <nextToken>more</nextToken>
</DescribeInstancesResponse>"#,
    );
    assert_eq!(answer.next_page().as_deref(), Some("more"));
    let addresses: Vec<_> = answer.addresses().collect();
    let addr = |text: &str| vec![text.parse().unwrap()];
    assert_eq!(
        addresses,
        [
            ("i-1".to_owned(), addr("10.77.0.11")),
            ("i-2".to_owned(), addr("fd00::2")),
            ("i-3".to_owned(), vec![])
        ]
    );
    let none: Instances =
        read("<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>");
    assert_eq!((none.next_page(), none.addresses().count()), (None, 0));
}

#[test]
fn a_classic_load_balancer_has_its_listeners() {
    let xml = r#"<DescribeLoadBalancersResponse xmlns="http://elasticloadbalancing.amazonaws.com/doc/2012-06-01/">
<DescribeLoadBalancersResult><LoadBalancerDescriptions><member>
  <SecurityGroups/><LoadBalancerName>hello-world-elb</LoadBalancerName><CreatedTime>2013-05-24T21:15:31.280Z</CreatedTime>
  <DNSName>hello-world-elb-1.us-east-1.elb.amazonaws.com</DNSName>
  <ListenerDescriptions>
    <member><PolicyNames/><Listener><Protocol>tcp</Protocol><LoadBalancerPort>80</LoadBalancerPort>
      <InstanceProtocol>TCP</InstanceProtocol><InstancePort>8080</InstancePort></Listener></member>
  </ListenerDescriptions>
</member></LoadBalancerDescriptions></DescribeLoadBalancersResult>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></DescribeLoadBalancersResponse>"#;
    let classic = read::<Classics>(xml).read("hello-world-elb").unwrap();
    let listener = ClassicListener {
        port: Port::new(80).unwrap(),
        instance_port: 8080,
        protocol: "TCP".to_owned(),
    };
    assert_eq!(classic.listeners, [listener]);
    assert_eq!(
        classic.dns_name,
        "hello-world-elb-1.us-east-1.elb.amazonaws.com"
    );
    let other = read::<Classics>(xml).read("other").unwrap_err();
    assert!(other.reason.contains("LoadBalancerNotFound"), "{other}");
}

const LISTENERS: &str = r#"<DescribeListenersResponse><DescribeListenersResult><Listeners>
<member><Protocol>TCP</Protocol><Port>80</Port><DefaultActions><member><Type>forward</Type>
  <TargetGroupArn>arn:one</TargetGroupArn></member></DefaultActions></member>
<member><Protocol>HTTP</Protocol><Port>81</Port><DefaultActions><member><Type>authenticate-oidc</Type></member>
  <member><Type>forward</Type><ForwardConfig><TargetGroups>
    <member><TargetGroupArn>arn:one</TargetGroupArn><Weight>3</Weight></member>
    <member><TargetGroupArn>arn:two</TargetGroupArn><Weight>0</Weight></member>
  </TargetGroups></ForwardConfig></member></DefaultActions></member>
<member><Protocol>HTTP</Protocol><Port>82</Port><DefaultActions><member><Type>redirect</Type></member></DefaultActions></member>
<member><Protocol>HTTP</Protocol><Port>83</Port><DefaultActions><member><Type>forward</Type>
  <ForwardConfig><TargetGroups><member><TargetGroupArn>arn:two</TargetGroupArn><Weight>1</Weight></member></TargetGroups>
  </ForwardConfig></member></DefaultActions></member>
</Listeners><NextMarker>m</NextMarker></DescribeListenersResult></DescribeListenersResponse>"#;

#[test]
fn a_listener_forwards_by_default_or_not_at_all() {
    let balancer = Balancer {
        arn: "arn:b".to_owned(),
        name: "web".to_owned(),
        dns_name: "web-1.elb.amazonaws.com".to_owned(),
        is_application: true,
    };
    let forwarded = |arn: &str| {
        let answer: Listeners = read(LISTENERS);
        assert_eq!(answer.next_page().as_deref(), Some("m"));
        let mut group = Group::default();
        for listener in answer.result.listeners.member {
            listener.read(arn, &balancer, &mut group);
        }
        let listeners = group.listeners.iter();
        let ports: Vec<_> = listeners
            .map(|found| (found.port.get(), found.share))
            .collect();
        (ports, group.manner.notes.len())
    };
    assert_eq!(forwarded("arn:one"), (vec![(80, None), (81, Some(3))], 1));
    assert_eq!(forwarded("arn:two"), (vec![(81, Some(0)), (83, None)], 1));
}

#[test]
fn a_target_group_has_attributes_of_which_some_mean_nothing_here() {
    let groups = read::<Groups>(
        r"<DescribeTargetGroupsResponse><DescribeTargetGroupsResult><TargetGroups><member>
<TargetGroupArn>arn:one</TargetGroupArn><TargetGroupName>one</TargetGroupName><Protocol>TCP</Protocol>
<LoadBalancerArns><member>arn:b</member></LoadBalancerArns></member></TargetGroups></DescribeTargetGroupsResult>
</DescribeTargetGroupsResponse>",
    );
    let (mut group, balancers) = groups.read("one").unwrap();
    assert_eq!(
        (group.name.as_str(), group.protocol.as_str()),
        ("one", "TCP")
    );
    assert_eq!(balancers, ["arn:b"]);
    let attributes = |kind: &str| {
        read::<Attributes>(&format!(
            "<A><DescribeTargetGroupAttributesResult><Attributes>\
             <member><Key>stickiness.enabled</Key><Value>true</Value></member>\
             <member><Key>stickiness.type</Key><Value>{kind}</Value></member>\
             <member><Key>proxy_protocol_v2.enabled</Key><Value>true</Value></member>\
             <member><Key>load_balancing.cross_zone.enabled</Key><Value/></member>\
             </Attributes></DescribeTargetGroupAttributesResult></A>"
        ))
    };
    attributes("source_ip").read(&mut group);
    assert!(group.manner.by_source);
    assert_eq!(group.manner.notes.len(), 1, "{:?}", group.manner.notes);
    attributes("lb_cookie").read(&mut group);
    assert!(
        group.manner.notes[1].contains("lb_cookie"),
        "{:?}",
        group.manner.notes
    );
}

/// A classic load balancer with the health check's target and the rest of it.
fn checked(target: &str, interval: &str) -> Classic {
    let xml = format!(
        "<D><DescribeLoadBalancersResult><LoadBalancerDescriptions><member><LoadBalancerName>elb</LoadBalancerName>\
         <HealthCheck><Interval>{interval}</Interval><Target>{target}</Target><HealthyThreshold>10</HealthyThreshold>\
         <Timeout>5</Timeout><UnhealthyThreshold>2</UnhealthyThreshold></HealthCheck>\
         </member></LoadBalancerDescriptions></DescribeLoadBalancersResult></D>"
    );
    read::<Classics>(&xml).read("elb").unwrap()
}

fn http(path: &str, expect: &[(u16, u16)]) -> Probe {
    let Probe::Http(mut http) = crate::provider::check::check("http:/").unwrap().probe else {
        panic!("a request");
    };
    (http.path, http.expect) = (path.to_owned(), expect.to_vec());
    Probe::Http(http)
}

#[test]
fn a_classic_health_check_is_made_at_each_tasks_own_port() {
    let expected = |probe| Check {
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(5),
        rise: 10,
        fall: 2,
        ..Check::new(probe)
    };
    let ok = &[(200, 200)];
    for (target, probe, notes) in [
        ("TCP:80", Probe::Tcp, 0),
        ("tcp:80", Probe::Tcp, 0),
        ("HTTP:8080/up?deep=1", http("/up?deep=1", ok), 0),
        ("HTTP:80", http("/", ok), 0),
        ("HTTPS:443/up", Probe::Tcp, 1),
        ("SSL:443", Probe::Tcp, 1),
    ] {
        let Manner {
            check, notes: said, ..
        } = checked(target, "30").manner;
        assert_eq!(check, Some(expected(probe)), "{target}");
        assert_eq!(said.len(), notes, "{target}: {said:?}");
    }
    assert_eq!(checked("", "").manner, Manner::default());
}

#[test]
fn a_health_check_that_is_wrong_is_none_and_said() {
    for (target, interval, why) in [
        ("GOPHER:70", "30", "\"GOPHER:70\" is none of TCP"),
        ("80", "30", "\"80\" is none of TCP"),
        ("TCP:80", "soon", "interval: \"soons\" is not a duration"),
        ("TCP:80", "-1", "interval: "),
        ("TCP:80", "4000", "is not between 100ms and 1h"),
        ("HTTP:80/\u{e9}", "30", "visible ASCII"),
    ] {
        let manner = checked(target, interval).manner;
        assert_eq!(manner.check, None, "{target}");
        let [note] = &manner.notes[..] else {
            panic!("{target}: {:?}", manner.notes);
        };
        assert!(note.starts_with("its health check is not taken over: "));
        assert!(note.contains(why), "{note}");
    }
}

/// A target group with this in it.
fn target_group(protocol: &str, xml: &str) -> Group {
    let xml = format!(
        "<D><DescribeTargetGroupsResult><TargetGroups><member><TargetGroupName>tg</TargetGroupName>\
         <Protocol>{protocol}</Protocol>{xml}</member></TargetGroups></DescribeTargetGroupsResult></D>"
    );
    read::<Groups>(&xml).read("tg").unwrap().0
}

#[test]
fn a_target_groups_health_check_is_ours() {
    let of = |protocol, check: &str, rest: &str| {
        let xml = format!("<HealthCheckProtocol>{check}</HealthCheckProtocol>{rest}");
        target_group(protocol, &xml).manner
    };
    let numbers = "<HealthCheckPort>traffic-port</HealthCheckPort><HealthCheckEnabled>true</HealthCheckEnabled>\
        <HealthCheckIntervalSeconds>15</HealthCheckIntervalSeconds>\
        <HealthCheckTimeoutSeconds>120</HealthCheckTimeoutSeconds><HealthyThresholdCount>5</HealthyThresholdCount>\
        <UnhealthyThresholdCount>4</UnhealthyThresholdCount>";
    let expected = |probe| Check {
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(60),
        rise: 5,
        fall: 4,
        ..Check::new(probe)
    };
    assert_eq!(of("TCP", "TCP", numbers).check, Some(expected(Probe::Tcp)));
    let up = "<HealthCheckPath>/up</HealthCheckPath>";
    let codes = "<Matcher><HttpCode>200-204,301</HttpCode></Matcher>";
    for (protocol, matcher, expect) in [
        ("HTTP", codes, &[(200, 204), (301, 301)][..]),
        ("HTTP", "", &[(200, 200)]),
        ("TCP", "", &[(200, 399)]),
    ] {
        let manner = of(protocol, "HTTP", &format!("{numbers}{up}{matcher}"));
        assert_eq!(manner.check, Some(expected(http("/up", expect))));
        assert_eq!(manner.notes, [""; 0]);
    }
    let port = "<HealthCheckPort>8081</HealthCheckPort>";
    assert_eq!(of("TCP", "TCP", port).check.unwrap().port, Port::new(8081));
    for (version, check) in [("HTTP1", "HTTPS"), ("GRPC", "HTTP"), ("HTTP2", "HTTP")] {
        let version = format!("<ProtocolVersion>{version}</ProtocolVersion>");
        let manner = of("HTTP", check, &version);
        assert_eq!(manner.check.unwrap().probe, Probe::Tcp);
        assert!(manner.notes[0].contains("a connection that is accepted"));
    }
    let off = "<HealthCheckEnabled>false</HealthCheckEnabled>";
    assert_eq!(of("TCP", "TCP", off), Manner::default());
    for (rest, why) in [
        (
            "<HealthCheckPort>0</HealthCheckPort>",
            "port: \"0\" is not a port",
        ),
        (
            "<HealthCheckPath>up</HealthCheckPath>",
            "begins with a slash",
        ),
        (
            "<Matcher><HttpCode>fine</HttpCode></Matcher>",
            "status codes: ",
        ),
        ("<HealthyThresholdCount>0</HealthyThresholdCount>", "rise: "),
    ] {
        let manner = of("HTTP", "HTTP", rest);
        assert_eq!(manner.check, None, "{rest}");
        assert!(manner.notes[0].contains(why), "{:?}", manner.notes);
    }
}

#[test]
fn a_deregistration_delay_ends_flows_where_the_load_balancer_would() {
    const DELAY: &str = "deregistration_delay.timeout_seconds";
    const ENDS: &str = "deregistration_delay.connection_termination.enabled";
    let drain = |protocol, attributes: &[(&str, &str)]| {
        let members: String = attributes
            .iter()
            .map(|(key, value)| format!("<member><Key>{key}</Key><Value>{value}</Value></member>"))
            .collect();
        let mut group = target_group(protocol, "");
        let xml = format!(
            "<D><DescribeTargetGroupAttributesResult><Attributes>{members}</Attributes>\
             </DescribeTargetGroupAttributesResult></D>"
        );
        read::<Attributes>(&xml).read(&mut group);
        (group.manner.drain, group.manner.notes)
    };
    for (protocol, attributes, expected) in [
        ("HTTP", &[(DELAY, "300")][..], Some(300)),
        ("HTTPS", &[(DELAY, "0"), (ENDS, "false")], Some(0)),
        ("TCP", &[(DELAY, "300")], None),
        ("TCP", &[(DELAY, "300"), (ENDS, "false")], None),
        ("TCP", &[(ENDS, "true"), (DELAY, "30")], Some(30)),
        ("UDP", &[(ENDS, "true"), (DELAY, "3600")], Some(3_600)),
        ("HTTP", &[], None),
    ] {
        let read = drain(protocol, attributes);
        assert_eq!(read, (expected, vec![]), "{protocol} {attributes:?}");
    }
    for wrong in ["", "-1", "3601", "5m", "4294967296"] {
        let (read, notes) = drain("HTTP", &[(DELAY, wrong)]);
        assert_eq!(read, None, "{wrong}");
        assert!(
            notes[0].contains(&format!("{wrong:?} is not a number of seconds")),
            "{notes:?}"
        );
    }
}

#[test]
fn connection_draining_of_a_classic_load_balancer_counts_if_it_is_on() {
    for (enabled, timeout, expected, notes) in [
        ("true", "60", Some(60), 0),
        ("false", "60", None, 0),
        ("true", "long", None, 1),
    ] {
        let attributes: ClassicAttributes = read(&format!(
            "<D><DescribeLoadBalancerAttributesResult><LoadBalancerAttributes><AccessLog><Enabled>true</Enabled></AccessLog>\
             <ConnectionSettings><IdleTimeout>60</IdleTimeout></ConnectionSettings><ConnectionDraining>\
             <Enabled>{enabled}</Enabled><Timeout>{timeout}</Timeout></ConnectionDraining></LoadBalancerAttributes>\
             </DescribeLoadBalancerAttributesResult></D>"
        ));
        let mut manner = Manner::default();
        attributes.read(&mut manner);
        assert_eq!(
            (manner.drain, manner.notes.len()),
            (expected, notes),
            "{enabled} {timeout}"
        );
    }
    let without: ClassicAttributes = read("<D><DescribeLoadBalancerAttributesResult/></D>");
    let mut manner = Manner::default();
    without.read(&mut manner);
    assert_eq!(manner, Manner::default());
}

#[test]
fn balancers_say_their_kind() {
    let answer: Balancers = read(
        "<D><DescribeLoadBalancersResult><LoadBalancers><member><LoadBalancerArn>arn:loadbalancer/app/x/1</LoadBalancerArn>\
         <LoadBalancerName>x</LoadBalancerName><Type>network</Type></member></LoadBalancers></DescribeLoadBalancersResult></D>",
    );
    let all: Vec<_> = answer.read().collect();
    assert_eq!((all[0].name.as_str(), all[0].is_application), ("x", false));
}

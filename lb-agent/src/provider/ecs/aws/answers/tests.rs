//! Answers as Amazon documents them.

use super::*;
use crate::catalog::Port;

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
        (ports, group.notes.len())
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
    assert!(group.by_source);
    assert_eq!(group.notes.len(), 1, "{:?}", group.notes);
    attributes("lb_cookie").read(&mut group);
    assert!(group.notes[1].contains("lb_cookie"), "{:?}", group.notes);
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

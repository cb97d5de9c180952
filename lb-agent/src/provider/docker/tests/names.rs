//! Under which names and ports services are found, and by which agents.

use super::*;

fn of(project: &str, addr: &str) -> Container {
    let labels = [
        ("com.docker.compose.project", project),
        ("com.docker.compose.service", "web"),
        ("lb.port", "80"),
    ];
    let name = format!("{project}-web-1");
    with_env(container(&name, addr, &labels), &["TCP_PORTS=80"])
}

/// `web -> web.shop`, and what is told of names.
fn aliases(containers: impl IntoIterator<Item = Container>) -> (Vec<String>, Vec<String>) {
    let all = snapshot(containers);
    let alias = |one: &crate::provider::Alias| {
        assert_eq!(&*one.framework, "docker");
        format!("{} -> {} of {}", one.name, one.of, one.app)
    };
    let told = reasons(&all).iter().map(|&why| why.to_owned()).collect();
    (all.aliases.iter().map(alias).collect(), told)
}

#[test]
fn a_service_of_the_only_project_that_has_it_is_found_without_the_project() {
    let only = vec!["web -> web.shop of /shop/web".to_owned()];
    assert_eq!(aliases([of("shop", "172.17.0.2")]), (only.clone(), vec![]));
    // Nobody is served by the name of one that asks for no VIP.
    let mut silent = of("blog", "172.17.0.3");
    silent.env.clear();
    assert_eq!(aliases([of("shop", "172.17.0.2"), silent]), (only, vec![]));
    let two = aliases([of("shop", "172.17.0.2"), of("blog", "172.17.0.3")]);
    let told =
        "services of this name have VIPs as web.blog, web.shop: the name web alone is not served";
    assert_eq!(two, (vec![], vec![told.to_owned()]));
}

#[test]
fn a_service_without_a_project_keeps_its_name() {
    let plain = with_env(container("web-1", "172.17.0.3", &[]), &["TCP_PORTS=80"]);
    assert_eq!(aliases([plain.clone()]), (vec![], vec![]));
    let told = "services of this name have VIPs as web.shop: the name web alone is that of the one without a project";
    let both = aliases([of("shop", "172.17.0.2"), plain]);
    assert_eq!(both, (vec![], vec![told.to_owned()]));
}

#[test]
fn a_label_of_dcos_leads_to_the_one_port_that_there_is() {
    let lead = |labels: &[(&str, &str)], env: &[&str], exposed: &[&str]| {
        let mut one = with_env(container("c", "172.17.0.2", labels), env);
        one.exposed = exposed.iter().filter_map(|port| target(port)).collect();
        let mut all = lines(&snapshot([one]));
        all.retain(|line| line.contains("web:"));
        all.join(" ").trim_start_matches('/').to_owned()
    };
    let vip = ("VIP_0", "/web:5000");
    for (labels, env, exposed, expected) in [
        (&[vip][..], &[][..], &["80/tcp", "53/udp"][..], "80"),
        (&[vip], &[], &[], "5000"),
        (&[vip], &[], &["80/tcp", "81/tcp"], "5000"),
        (&[vip], &["EXCLUDE_PORTS=81"], &["80/tcp", "81/tcp"], "80"),
        (&[vip], &["SERVICE_PORTS=81"], &["80/tcp"], "81"),
        (&[vip, ("lb.port", "82")], &[], &["80/tcp"], "82"),
        (&[("VIP_1", "web:5000=83")], &[], &["80/tcp"], "83"),
        (&[("lb.vip", "web:5000")], &[], &["80/tcp"], "5000"),
    ] {
        let expected = format!("web:5000/tcp 172.17.0.2:{expected} x1");
        assert_eq!(
            lead(labels, env, exposed),
            expected,
            "{labels:?} {env:?} {exposed:?}"
        );
    }
    let udp = lead(&[("VIP_0", "web:5000/udp")], &[], &["80/tcp", "53/udp"]);
    assert_eq!(udp, "web:5000/udp 172.17.0.2:53 x1");
}

#[test]
fn a_port_that_is_excluded_is_behind_no_vip_either() {
    let vips = |label| {
        let one = container("c", "172.17.0.2", &[("lb.vip", label)]);
        snapshot([with_env(one, &["EXCLUDE_PORTS=81"])])
    };
    let some = vips("web:80, admin:80=81");
    assert_eq!(
        lines(&some),
        ["c:80/tcp 172.17.0.2:80 x1", "web:80/tcp 172.17.0.2:80 x1"]
    );
    let none = vips("admin:80=81");
    assert_eq!(lines(&none), [""; 0]);
    assert!(
        reasons(&none)[0].ends_with("that EXCLUDE_PORTS leaves"),
        "{:?}",
        reasons(&none)
    );
}

#[test]
fn a_service_may_be_for_some_groups_of_agents() {
    let groups = |label: &str| {
        let labels = [("lb.vip", "web:80"), ("lb.group", label)];
        let all = snapshot([container("web", "172.17.0.2", &labels)]);
        let properties = all.pools.first().and_then(|pool| pool.properties.clone());
        let groups = properties.map(|properties| properties.groups.clone());
        (
            groups.map(|groups| groups.iter().map(|one| one.to_string()).collect::<Vec<_>>()),
            reasons(&all).join(" "),
        )
    };
    let two = vec!["edge".to_owned(), "inner".to_owned()];
    assert_eq!(groups("inner, edge"), (Some(two), String::new()));
    let (none, why) = groups(" ");
    assert_eq!(none, None);
    assert!(why.starts_with("label lb.group: it is empty"), "{why}");
}

#[test]
fn a_container_says_in_which_zone_it_is() {
    let zone = |label: &str| {
        let labels = [("lb.vip", "web:80"), ("lb.zone", label)];
        let all = snapshot([container("web", "172.17.0.2", &labels)]);
        let backend = all
            .pools
            .first()
            .and_then(|pool| pool.backends.first().cloned());
        let zone = backend.and_then(|backend| backend.zone);
        (zone.map(|zone| zone.to_string()), reasons(&all).join(" "))
    };
    assert_eq!(zone("rack-7"), (Some("rack-7".to_owned()), String::new()));
    let (none, why) = zone("rack 7");
    assert_eq!(none, None);
    assert!(
        why.starts_with("label lb.zone: \"rack 7\" is not a word"),
        "{why}"
    );
}

#[test]
fn the_operator_chooses_the_name_space() {
    let mut config = config();
    config.framework = "east".into();
    let all = build(&engine([of("shop", "172.17.0.2")]), &config);
    for pool in &all.pools {
        let VipHost::Named { framework, .. } = &pool.host else {
            panic!("{pool:?} has no name");
        };
        assert_eq!(&**framework, "east");
    }
    assert_eq!((all.pools.len(), &*all.aliases[0].framework), (1, "east"));
}

#[test]
fn a_container_that_is_stopped_keeps_its_domains_and_takes_none_from_others() {
    let one = |name, host: &str, phase| {
        let env = format!("VIRTUAL_HOST={host}");
        let one = with_env(container(name, "172.17.0.2", &[]), &[&env]);
        Container { phase, ..one }
    };
    let all = snapshot([
        one("api", "shop.example/api", Phase::Absent),
        one("web", "shop.example, *.shop.example", Phase::Running),
    ]);
    assert_eq!(
        lines(&all),
        [
            "api:80/tcp",
            "shop.example:80/tcp",
            "any--name.shop.example:80/tcp 172.17.0.2:80 x1",
            "shop.example:80/tcp 172.17.0.2:80 x1",
            "web:80/tcp 172.17.0.2:80 x1",
        ]
    );
    let told = reasons(&all).join(" ");
    assert!(!told.contains("already"), "{told}");
}

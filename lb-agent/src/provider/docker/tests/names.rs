//! Under which names services are found.

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

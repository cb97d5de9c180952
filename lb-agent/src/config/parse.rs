//! From the text of one setting to its type; each error completes the sentence that names the setting.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;
use reqwest::Url;

use crate::admin::haproxy::{Level, Place};

use super::{
    DNS_PORT,
    types::{AddrRange, Ipv4Range, Ipv6Range, PortRange},
};

/// One of a few words.
pub(crate) fn choice<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("\"{text}\" is not one of {}", words.join(", "))
        })
    }
}

/// A name that the kernel takes for an interface (`dev_valid_name` in net/core/dev.c).
pub(crate) fn interface(text: &str) -> Result<String, String> {
    const IFNAMSIZ: usize = 16;
    let valid = !text.is_empty()
        && text.len() < IFNAMSIZ
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!("\"{text}\" cannot be the name of an interface"))
    }
}

/// The base URL of a Marathon.
pub(crate) fn marathon_url(text: &str) -> Result<Url, String> {
    base_url(text, "marathon", "http://marathon.mesos:8080")
}

/// The URL of a member of an etcd cluster.
pub(crate) fn etcd_url(text: &str) -> Result<Url, String> {
    base_url(text, "etcd", "https://10.0.0.2:2379")
}

/// What keys in etcd begin with, with a slash at its end.
pub(crate) fn etcd_prefix(text: &str) -> Result<String, String> {
    const MOST: usize = 256;
    let plain = |c: char| c.is_ascii_graphic();
    if text.is_empty() || text.len() > MOST || !text.chars().all(plain) {
        return Err(format!(
            "{text:?} is not a prefix such as /lb-agent/: 1 to {MOST} printable characters without blanks"
        ));
    }
    Ok(format!("{}/", text.trim_end_matches('/')))
}

/// The URL that `example` is one of, of an orchestrator whose settings begin with `--kind`.
fn base_url(text: &str, kind: &str, example: &str) -> Result<Url, String> {
    let url = Url::parse(text)
        .map_err(|error| format!("\"{text}\" is not a URL such as {example} ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("\"{text}\" must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Everybody on the node can read a command line, so the text is not repeated here either.
        return Err(format!(
            "a URL must not hold a user or password; use --{kind}-user and --{kind}-password-file"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("\"{text}\" must end with the path: no ? and no #"));
    }
    Ok(url)
}

/// RFC 5426, section 3.3.
const SYSLOG_PORT: u16 = 514;

/// Where Docker's engine listens unless told otherwise.
const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";

/// `yes`, `no`, or where an engine listens; `None`: not wanted.
pub(crate) fn docker_socket(text: &str) -> Result<Option<String>, String> {
    match text {
        "no" => Ok(None),
        super::keys::YES => Ok(Some(DOCKER_SOCKET.to_owned())),
        _ => docker_host(text).map(Some),
    }
}

/// Where an engine listens.
pub(crate) fn docker_host(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "\"{text}\" is neither unix:///PATH nor tcp://HOST:PORT; without a value it is {DOCKER_SOCKET}"
        )
    };
    match text {
        _ if text.starts_with('/') => Ok(format!("unix://{text}")),
        _ if text.starts_with("unix:///") => Ok(text.to_owned()),
        _ => {
            let url = Url::parse(text).map_err(|_| wrong())?;
            let plain = url.scheme() == "tcp" && url.host_str().is_some() && url.port().is_some();
            if plain {
                Ok(text.to_owned())
            } else {
                Err(wrong())
            }
        }
    }
}

/// Text that is not blank.
pub(crate) fn word(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// The name space of VIPs, as it is in their names.
pub(crate) fn framework(text: &str) -> Result<String, String> {
    match crate::vip::label(text) {
        Some(label) if label == text => Ok(label),
        _ => Err(format!(
            "{text:?} is not one label of lower-case letters, digits and inner dashes"
        )),
    }
}

/// A Marathon app's id; the slash before it may be left out.
pub(crate) fn app_id(text: &str) -> Result<String, String> {
    match text.trim_start_matches('/') {
        "" => Err("is not an app id such as /shop/web".to_owned()),
        id => Ok(format!("/{id}")),
    }
}

/// A file that can be read now.
pub(crate) fn readable_file(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    let is_dir = File::open(path)
        .and_then(|file| file.metadata())
        .map(|found| found.is_dir());
    match is_dir {
        Ok(false) => Ok(path.to_owned()),
        Ok(true) => Err(format!("\"{text}\" is a directory, not a file")),
        // Root itself, so this is about the right to read others' files.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && rustix::process::geteuid().is_root() =>
        {
            Err(format!(
                "cannot read \"{text}\": {error}; the agent keeps no right to read files of others: make it root's"
            ))
        }
        Err(error) => Err(format!("cannot read \"{text}\": {error}")),
    }
}

/// A file or a directory that can be read now.
pub(crate) fn readable(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_dir() {
        return readable_file(text);
    }
    std::fs::read_dir(path)
        .map(|_| path.to_owned())
        .map_err(|error| format!("cannot read \"{text}\": {error}"))
}

/// A path from the root.
pub(crate) fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!(
            "\"{text}\" must be an absolute path, such as /run/lb-agent"
        ))
    }
}

/// A directory whose socket's path fits into `sun_path` (108 bytes with the final NUL, unix(7)).
pub(crate) fn run_dir(text: &str) -> Result<PathBuf, String> {
    const SUN_PATH: usize = 108;
    let path = absolute(text)?;
    let room = SUN_PATH - 1 - 1 - crate::admin::SOCKET_NAME.len();
    if text.len() > room {
        return Err(format!(
            "\"{text}\" is too long for a socket in it: at most {room} bytes"
        ));
    }
    Ok(path)
}

/// A domain of at least two labels, in lower case and without a dot at its end.
pub(crate) fn domain(text: &str) -> Result<String, String> {
    let domain = text.trim_end_matches('.').to_ascii_lowercase();
    let is_label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    match domain.contains('.') && domain.len() <= 253 && domain.split('.').all(is_label) {
        true => Ok(domain),
        false => Err(format!("{text:?} is no domain such as shop.example.org")),
    }
}

/// Where DNS is answered. A wildcard would send replies from another address than was asked.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| {
        format!("\"{text}\" is not an address with a port, such as 127.0.0.1:53 or [::1]:53")
    })?;
    if addr.ip().is_unspecified() {
        return Err(format!(
            "\"{text}\" stands for all addresses; name each address to listen on"
        ));
    }
    if addr.ip().is_multicast() {
        return Err(format!("\"{text}\" is a multicast address"));
    }
    if addr.port() == 0 {
        return Err(format!("\"{text}\" has port 0"));
    }
    Ok(addr)
}

/// Where to answer HTTP; all addresses are possible.
pub(crate) fn admin_listen(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text.parse().map_err(|_| {
        format!("\"{text}\" is not an address with a port, such as 127.0.0.1:9090 or [::1]:9090")
    })?;
    if addr.ip().is_multicast() {
        return Err(format!("\"{text}\" is a multicast address"));
    }
    if addr.port() == 0 {
        return Err(format!("\"{text}\" has port 0"));
    }
    Ok(addr)
}

/// The path of a page, other than that of the statistics.
pub(crate) fn page(text: &str) -> Result<String, String> {
    const MOST: usize = 256;
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    if text.len() < 2 || text.len() > MOST || !text.starts_with('/') || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is not a path such as /monitor: a slash and up to {MOST} characters without blanks, ? and #"
        ));
    }
    Ok(text.to_owned())
}

/// A unix socket and who may open it, or `none`.
pub(crate) fn stats_socket(text: &str) -> Result<Option<Place>, String> {
    if text == super::sources::NONE {
        return Ok(None);
    }
    let mut parts = text.split(',').map(str::trim);
    let mut place = Place {
        path: Some(absolute(parts.next().unwrap_or_default())?),
        ..Place::default()
    };
    for part in parts {
        let wrong = || {
            format!(
                "\"{part}\" is none of mode=0600, group=NAME and level=user, level=operator or level=admin"
            )
        };
        match part.split_once('=').ok_or_else(wrong)? {
            ("mode", mode) => {
                let mode = u32::from_str_radix(mode, 8).ok();
                place.mode = mode.filter(|mode| *mode <= 0o777).ok_or_else(wrong)?;
            }
            ("group", group) => place.group = Some(word(group)?),
            ("level", level) => {
                let levels = [
                    ("user", Level::User),
                    ("operator", Level::Operator),
                    ("admin", Level::Admin),
                ];
                place.level = choice(&levels)(level)?;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(Some(place))
}

/// The address put on `lo`, or `none`.
pub(crate) fn link_address(text: &str) -> Result<Option<IpAddr>, String> {
    if text == super::sources::NONE {
        return Ok(None);
    }
    let addr: IpAddr = text
        .parse()
        .map_err(|_| format!("\"{text}\" is neither an address nor `none`"))?;
    if addr.is_unspecified() || addr.is_loopback() || addr.is_multicast() {
        return Err(format!(
            "\"{text}\" cannot be reached from a container; use a link-local or private address"
        ));
    }
    Ok(Some(addr))
}

/// A resolver, on port 53 unless it says otherwise.
pub(crate) fn upstream(text: &str) -> Result<SocketAddr, String> {
    server(text, DNS_PORT, "a resolver")
}

/// A syslog server, on its usual port unless it says otherwise.
pub(crate) fn syslog(text: &str) -> Result<SocketAddr, String> {
    server(text, SYSLOG_PORT, "a syslog server")
}

fn server(text: &str, usual: u16, what: &str) -> Result<SocketAddr, String> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let addr = match bracketed.unwrap_or(text).parse::<IpAddr>() {
        Ok(addr) => SocketAddr::new(addr, usual),
        Err(_) => text.parse().map_err(|_| {
            format!("\"{text}\" is not an address with or without port, such as 10.0.0.2 or [fd00::2]:5353")
        })?,
    };
    if addr.ip().is_unspecified() || addr.ip().is_multicast() || addr.port() == 0 {
        return Err(format!("\"{text}\" cannot be {what}"));
    }
    Ok(addr)
}

/// Another node's address; `None`: those that stand in etcd.
pub(crate) fn peer(text: &str) -> Result<Option<IpAddr>, String> {
    if text == "etcd" {
        return Ok(None);
    }
    let addr: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is neither an IP address nor `etcd`"))?;
    let addr = addr.to_canonical();
    if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
        return Err(format!("{addr} is no other node's address"));
    }
    Ok(Some(addr))
}

/// A prefix without host bits, or one address.
pub(crate) fn cidr(text: &str) -> Result<IpNet, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(addr));
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not a prefix such as 10.0.0.0/8 or fd00::/8"))?;
    if net.addr() != net.network() {
        return Err(format!(
            "\"{text}\" has bits set after its prefix; did you mean {}?",
            net.trunc()
        ));
    }
    Ok(net)
}

/// A cluster's public key: base 32 in Zooko's alphabet, as one DNS label.
pub(crate) fn zbase32(text: &str) -> Result<String, String> {
    const ALPHABET: &str = "ybndrfg8ejkmcpqxot1uwisza345h769";
    const LABEL: RangeInclusive<usize> = 1..=63;
    let key = text.to_ascii_lowercase();
    if !LABEL.contains(&key.len()) || !key.chars().all(|c| ALPHABET.contains(c)) {
        return Err(format!(
            "\"{text}\" is not a zbase32 key of at most 63 letters and digits"
        ));
    }
    Ok(key)
}

/// `MIN-MAX`, ports.
pub(crate) fn ports(text: &str) -> Result<PortRange, String> {
    let malformed = || format!("\"{text}\" is not a range of ports such as 10000-20000");
    let (min, max) = text.split_once('-').ok_or_else(malformed)?;
    let port = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(malformed)
    };
    let (min, max) = (port(min)?, port(max)?);
    if min > max {
        return Err(format!("\"{text}\" ends before it begins"));
    }
    Ok(PortRange { min, max })
}

/// A pool of IPv4 addresses.
pub(crate) fn pool_v4(text: &str) -> Result<Ipv4Range, String> {
    let range = addresses::<Ipv4Addr>(text, "11.0.0.0-11.255.255.255")?;
    let forbidden = [
        ("0.0.0.0/8", "this network"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/3", "multicast or reserved"),
    ];
    reject_overlap(text, range.min.into(), range.max.into(), &forbidden)?;
    Ok(range)
}

/// A pool of IPv6 addresses.
pub(crate) fn pool_v6(text: &str) -> Result<Ipv6Range, String> {
    let range = addresses::<Ipv6Addr>(text, "fd01:c::-fd01:c::ffff:ffff:ffff:ffff")?;
    let forbidden = [
        ("::/127", "unspecified and loopback"),
        ("::ffff:0:0/96", "v4-mapped"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    ];
    reject_overlap(text, range.min.into(), range.max.into(), &forbidden)?;
    Ok(range)
}

fn addresses<A: FromStr + Ord>(text: &str, example: &str) -> Result<AddrRange<A>, String> {
    let malformed = || format!("\"{text}\" is not a range of addresses such as {example}");
    let (min, max) = text.split_once('-').ok_or_else(malformed)?;
    let addr = |text: &str| text.trim().parse::<A>().map_err(|_| malformed());
    let (min, max) = (addr(min)?, addr(max)?);
    if min >= max {
        return Err(format!("\"{text}\" must end after it begins"));
    }
    Ok(AddrRange { min, max })
}

fn reject_overlap(
    text: &str,
    min: IpAddr,
    max: IpAddr,
    forbidden: &[(&str, &str)],
) -> Result<(), String> {
    for (net, what) in forbidden {
        let net: IpNet = net.parse().map_err(|_| format!("{net} is not a prefix"))?;
        if min <= net.broadcast() && net.network() <= max {
            return Err(format!("\"{text}\" holds {what} addresses ({net})"));
        }
    }
    Ok(())
}

/// A whole number in a range.
pub(crate) fn number(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!(
                "\"{text}\" is not a whole number from {} to {}",
                range.start(),
                range.end()
            )
        })
    }
}

/// A filter that the logger accepts.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    match crate::log::parse_filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "\"{text}\" is not a log filter such as info,lb_agent::dns=debug ({error})"
        )),
    }
}

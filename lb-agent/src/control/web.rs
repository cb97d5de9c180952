//! The pages over TCP, the stats socket and the syslog server's socket, from their settings to their tasks.

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    admin::{
        Admin, Syslog,
        haproxy::{self, StatsSocket},
        stats::Events,
        web::{self, Access, Certificate, Listening},
    },
    config::{AdminHttp, Config},
};

/// Everything that can fail was tried: addresses are bound, certificates read.
#[derive(Default)]
pub(super) struct Web {
    pages: Option<Pages>,
    stats: Option<StatsSocket>,
    syslog: Option<Syslog>,
}

struct Pages {
    listening: Listening,
    certificate: Option<Certificate>,
    access: Access,
    node: String,
}

// === impl Web ===

impl Web {
    /// Takes addresses and socket before anything is attached: what another program holds ends the start, if it was
    /// asked for.
    pub(super) fn open(config: &Config) -> Result<Self> {
        let pages = config.admin.as_ref().map(Pages::open).transpose()?;
        let run_dir = &config.paths.run_dir;
        let place = config.stats_socket.as_ref();
        let stats = place.map(|place| StatsSocket::open(place, run_dir));
        let syslog = config.syslog.map(|to| {
            let opened = Syslog::open(to, &node());
            opened.with_context(|| format!("cannot open a socket for --syslog {to}"))
        });
        Ok(Self {
            pages,
            stats: stats.transpose()?,
            syslog: syslog.transpose()?,
        })
    }

    /// Answers as soon as there is something to tell; who comes before waits.
    pub(super) fn serve(self, admin: &Admin, events: &Events, stop: &CancellationToken) {
        if let Some(syslog) = self.syslog {
            let follow = syslog.follow(events.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
        }
        let (admin, stop) = (admin.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            admin.has_begun().await;
            if let Some(pages) = self.pages
                && let Err(error) = pages.serve(&admin, &stop)
            {
                error!("{error:#}");
            }
            if let Some(stats) = self.stats
                && let Err(error) = haproxy::serve(stats, admin, stop).await
            {
                error!("the stats socket ended: {error}");
            }
        }));
    }
}

// === impl Pages ===

impl Pages {
    fn open(settings: &AdminHttp) -> Result<Self> {
        let certificate = match &settings.certificate {
            Some((chain, key)) => {
                let certificate = Certificate::load(chain, key);
                Some(certificate.context("--admin-tls-cert and --admin-tls-key")?)
            }
            None => None,
        };
        let listening = Listening::open(&settings.listen, settings.by_default)?;
        Ok(Self {
            listening,
            certificate,
            access: Access {
                token_file: settings.token_file.clone(),
                users_file: settings.users_file.clone(),
                closed: settings.closed,
                health: settings.health_path.clone(),
                hosts: settings.hosts.clone(),
            },
            node: node(),
        })
    }

    fn serve(self, admin: &Admin, stop: &CancellationToken) -> Result<()> {
        let Self {
            listening,
            certificate,
            access,
            node,
        } = self;
        for warning in &listening.warnings {
            warn!("{warning}");
        }
        for at in listening.addresses() {
            info!(%at, tls = certificate.is_some(), "statistics are served");
        }
        let router = admin.clone().router();
        web::serve(listening, certificate, router, access, node, stop)
            .context("cannot serve the pages over TCP")
    }
}

/// This node's host name.
fn node() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

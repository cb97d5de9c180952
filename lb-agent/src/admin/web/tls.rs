//! The certificate of the pages over TCP; a renewed one counts from the next connection on.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tracing::{info, warn};

/// A certificate with its key, in two PEM files.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Arc<ServerConfig>, Stamp)>,
}

/// When the two files were last written.
type Stamp = [Option<SystemTime>; 2];

// === impl Certificate ===

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// One of them cannot be read, or they do not belong together.
    pub fn load(chain: &Path, key: &Path) -> Result<Self> {
        let stamp = stamp(chain, key);
        let config = read(chain, key)?;
        Ok(Self {
            chain: chain.to_owned(),
            key: key.to_owned(),
            loaded: Mutex::new((config, stamp)),
        })
    }

    /// As the files are now; the last good ones if they cannot be used.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.chain, &self.key);
        if stamp != loaded.1 {
            match read(&self.chain, &self.key) {
                Ok(config) => {
                    info!("the renewed certificate {} is in use", self.chain.display());
                    loaded.0 = config;
                }
                Err(error) => warn!("{error:#}; the certificate before it stays in use"),
            }
            loaded.1 = stamp;
        }
        Arc::clone(&loaded.0)
    }
}

fn stamp(chain: &Path, key: &Path) -> Stamp {
    [chain, key].map(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
}

fn read(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate {}", chain.display()))?;
    ensure!(
        !certificates.is_empty(),
        "{} holds no certificate in PEM form",
        chain.display()
    );
    let secret = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the key {}", key.display()))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, secret)
        .with_context(|| {
            format!(
                "{} and {} cannot be used together",
                chain.display(),
                key.display()
            )
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

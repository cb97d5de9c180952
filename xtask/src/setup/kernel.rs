//! The oldest kernel that the agent is for, as Debian 12 has it: unpacked into the cache, for an emulated machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result};

use super::{apt, cache};
use crate::shell::{output, run};

/// Depends on the newest that Debian has for machines without hardware.
const NEWEST: &str = "linux-image-cloud-amd64";
/// What the names of the wanted ones begin with.
const SERIES: &str = "linux-image-6.1.";

/// Where it is: `boot/vmlinuz-*` and `lib/modules/*`.
///
/// # Errors
///
/// There is no cache folder.
pub(crate) fn place() -> Result<PathBuf> {
    Ok(cache()?.join("kernel-6.1"))
}

/// Downloads and unpacks it, unless it is there. Nothing of it is installed.
///
/// # Errors
///
/// Debian 12's lists of packages are not to be had.
pub(super) fn bring() -> Result<()> {
    let place = place()?;
    if place.is_dir() {
        return Ok(());
    }
    // Beside the final place, so that a download cut short leaves nothing that looks done.
    let partial = place.with_file_name(format!("kernel-6.1-partial-{}", process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    // There may be no list of packages yet, or one with a version that is gone.
    let fetched = fetch(&partial)
        .or_else(|_| apt::update().and_then(|()| fetch(&partial)))
        .with_context(|| format!("cannot fetch Linux 6.1 ({NEWEST} of Debian 12)"));
    let moved = fetched.and_then(|unpacked| {
        // Whatever is at the final place was put there by another setup meanwhile.
        let _ = fs::remove_dir_all(&place);
        fs::rename(unpacked, &place).with_context(|| format!("cannot move to {}", place.display()))
    });
    let _ = fs::remove_dir_all(&partial);
    moved
}

/// Gives the folder in `dir` with what the package holds.
fn fetch(dir: &Path) -> Result<PathBuf> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", NEWEST]).env("LC_ALL", "C");
    let depends = output(&mut depends)?;
    let image = image(&depends)?;
    eprintln!("setup: fetching {image}");
    let package = apt::download(image, dir)?;
    let unpacked = dir.join("unpacked");
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .args([&package, &unpacked]))?;
    Ok(unpacked)
}

/// The package of the kernel among what `apt-cache depends` says.
fn image(depends: &str) -> Result<&str> {
    let mut words = depends.split_whitespace();
    words
        .find(|word| word.starts_with(SERIES))
        .with_context(|| format!("{NEWEST} is not Linux 6.1 in this system's lists of packages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_found_among_what_is_depended_on() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(image(depends).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        let newer = "linux-image-cloud-amd64\n  Depends: linux-image-6.12.48-cloud-amd64\n";
        assert!(image(newer).is_err());
    }
}

//! Precedence, defaults, and every sentence that refuses a setting.

mod admin;
mod docker;
mod ecs;
mod etcd;
mod help;
mod marathons;
mod precedence;
mod refusals;

use std::{collections::BTreeMap, fs, path::PathBuf};

use tempfile::TempDir;

use super::{Config, ConfigError, sources::Surroundings};
use crate::cli::Cli;

/// A node with nothing configured but what a test says.
struct Node {
    dir: TempDir,
    flags: Vec<String>,
    around: Surroundings,
}

impl Node {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let around = Surroundings {
            env: BTreeMap::new(),
            config: dir.path().join("config.toml"),
            services: dir.path().join("services.yaml"),
        };
        Self {
            dir,
            flags: Vec::new(),
            around,
        }
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.around.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(self, text: &str) -> Self {
        fs::write(&self.around.config, text).unwrap();
        self
    }

    /// Makes a file beside the config file.
    fn with(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self) -> Result<Config, ConfigError> {
        let args = std::iter::once("lb-agent".to_owned()).chain(self.flags.iter().cloned());
        let cli = Cli::from_args(args).unwrap();
        Config::load_in(&cli.flags, &self.around)
    }

    fn config(&self) -> Config {
        self.load().unwrap()
    }

    /// The sentence, with the temporary directory as `DIR`.
    fn refusal(&self) -> String {
        let sentence = self.load().unwrap_err().to_string();
        assert!(!sentence.contains('\n'), "not one sentence: {sentence}");
        sentence.replace(&self.dir.path().display().to_string(), "DIR")
    }
}

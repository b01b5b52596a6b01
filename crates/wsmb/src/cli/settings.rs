//! The options of every command that reads the broker's configuration.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use wsmb_config::{Config, Flags};

/// Where the configuration comes from: file, then environment, then these.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Settings {
    /// Configuration file (TOML); without one, everything has its default
    #[arg(long, env = "WSMB_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where messages are kept: sqlite:PATH, mysql://USER@HOST/DATABASE, postgres://…, or memory: (only while the broker runs)
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,

    /// Set one key of the configuration, as in --set channel_defaults.ttl=5m; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Directory for the broker's files, in place of ./wsmb-data
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks all of it.
    ///
    /// # Errors
    /// Everything that is wrong, one sentence a line.
    pub(crate) fn load(&self, listen: &[String]) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), std::env::vars_os(), &self.flags(listen)).map_err(|error| {
            let text = error.to_string();
            if text.contains('\n') {
                Failure::failed(format_args!("the configuration cannot be used:\n{text}"))
            } else {
                Failure::failed(format_args!("the configuration cannot be used: {text}"))
            }
        })
    }

    /// What the command line sets; `listen` comes from `serve` alone.
    pub(crate) fn flags(&self, listen: &[String]) -> Flags {
        Flags {
            listen: listen.to_vec(),
            store: self.store.clone(),
            set: self.set.clone(),
            data_dir: self.data_dir.clone(),
        }
    }

    /// Nobody has configured any users: the first start makes one.
    pub(crate) fn makes_first_user(&self, config: &Config) -> bool {
        let default = [self.data_dir().join(wsmb_auth::first_start::FILE)];
        self.config.is_none()
            && !config.auth.anonymous
            && config.auth.users.is_empty()
            && config.auth.htpasswd == default
    }

    /// The directory for the broker's files.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(wsmb_config::DATA_DIR))
    }
}

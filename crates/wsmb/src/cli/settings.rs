//! The options of each command that reads the broker's configuration.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use wsmb_config::{Config, Flags};

/// Sources of the configuration. Options take precedence over environment variables, and these over the file.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Configuration")]
pub(crate) struct Settings {
    /// Configuration file (TOML) [default: none; settings have their defaults]
    #[arg(long, env = "WSMB_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Store of the messages: sqlite:PATH, mysql://USER@HOST/DATABASE, postgres://…, or memory: (messages are lost when the broker stops)
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,

    /// Set one key of the configuration, for example --set channel_defaults.ttl=5m; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Directory of the broker's files [default: ./wsmb-data]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Settings {
    /// Reads and checks the whole configuration.
    ///
    /// # Errors
    /// Every mistake in the configuration, one per line.
    pub(crate) fn load(&self, listen: &[String]) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), std::env::vars_os(), &self.flags(listen)).map_err(|error| {
            let text = error.to_string();
            if text.contains('\n') {
                Failure::failed(format_args!("invalid configuration:\n{text}"))
            } else {
                Failure::failed(format_args!("invalid configuration: {text}"))
            }
        })
    }

    /// Returns the settings of the command line. `listen`: the values of `--listen`, an option of `serve` and `check`.
    pub(crate) fn flags(&self, listen: &[String]) -> Flags {
        Flags {
            listen: listen.to_vec(),
            store: self.store.clone(),
            set: self.set.clone(),
            data_dir: self.data_dir.clone(),
        }
    }

    /// Makes the user of the first start an administrator: without a configuration, nobody can name one.
    pub(crate) fn add_first_admin(&self, config: &mut Config) {
        let admins = &config.auth.admins;
        if self.makes_first_user(config) && !admins.iter().any(|admin| admin == wsmb_auth::first_start::USER) {
            config.auth.admins.push(wsmb_auth::first_start::USER.to_owned());
        }
    }

    /// Whether no users are configured. Then the first start makes one.
    pub(crate) fn makes_first_user(&self, config: &Config) -> bool {
        let default = [self.data_dir().join(wsmb_auth::first_start::FILE)];
        self.config.is_none()
            && !config.auth.anonymous
            && config.auth.users.is_empty()
            && config.auth.htpasswd == default
    }

    /// Returns the directory of the broker's files.
    pub(crate) fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(wsmb_config::DATA_DIR))
    }
}

//! `wsmb login`: stores the address of a broker, a user and a password for the client commands.
//!
//! Never takes the password as an argument: the user types it without echo, or it comes from standard input or a file. Never stores a password that the
//! broker refuses.

use std::path::PathBuf;

use clap::Args;

use super::contexts::{self, Context, Contexts, Secret};
use super::output::{self, Style};
use super::{Failure, Outcome, connect, passwd};
use wsmb_client::{Client, Credentials, Options, Url};

/// Store the address of a broker, a user and a password for the other commands
///
/// Each login has a name, and is stored in a file that only you can read. Commands that connect to a broker use the login that --context or WSMB_CONTEXT
/// names. With --url or WSMB_URL, they use a login that is stored for this address. With neither, they use the login called "default".
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb login wss://broker.example --user app
  wsmb login ws://10.0.0.7:8888 --user gateway --context home < password.txt
  wsmb send sms hello --context home
  wsmb login --list")]
pub(crate) struct Login {
    /// Address of the broker: ws[s]://[user@]host[:port][/path]
    #[arg(required_unless_present_any = ["list", "remove"])]
    url: Option<String>,

    /// User name [default: the user in the address, else asked for]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Name of the login
    #[arg(long, value_name = "NAME", default_value = contexts::DEFAULT, value_parser = contexts::name)]
    context: String,

    /// File whose first line is the password [default: asked for on a terminal, else read from standard input]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// For wss://: PEM file with the only certificates to trust, of authorities or of the broker itself; stored with the login [env: WSMB_CA]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "remove"])]
    ca: Option<PathBuf>,

    /// List the stored logins, without passwords
    #[arg(long, conflicts_with_all = ["url", "user", "password_file"])]
    list: bool,

    /// Print one JSON object per login
    #[arg(long, requires = "list")]
    json: bool,

    /// Remove the login of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["url", "user", "password_file", "list"])]
    remove: Option<String>,
}

impl Login {
    pub(crate) async fn run(self) -> Outcome {
        let mut contexts = Contexts::load()?;
        if let Some(name) = &self.remove {
            if !contexts.remove(name) {
                return Err(contexts::unknown(name));
            }
            contexts.save()?;
            return output::line(&format!("removed the login {name}"));
        }
        let Some(url) = &self.url else { return self.list(&contexts) };
        let url = Url::parse(url).map_err(Failure::misuse)?;
        let (user, password) = self.credentials(&url)?;
        let credentials = Credentials::new(&user, &password);
        let ca = self.ca()?;
        verify(&url, credentials, ca.clone()).await?;
        let context = Context {
            url: url.to_string(),
            user: Some(user.clone()),
            password: Some(Secret(password)),
            ca,
            data_dir: None,
        };
        contexts.set(&self.context, context);
        contexts.save()?;
        let file = contexts.file().map(|file| file.display().to_string()).unwrap_or_default();
        let use_it = match self.context.as_str() {
            contexts::DEFAULT => "commands without --url and --context use this login".to_owned(),
            name => format!("use this login with --context {name}"),
        };
        output::line(&format!("stored the login of {user} at {} in {file}; {use_it}", url.authority()))
    }

    /// Returns the file of `--ca` or `WSMB_CA` as an absolute path, because other commands run in other directories.
    fn ca(&self) -> Result<Option<PathBuf>, Failure> {
        let ca = match &self.ca {
            Some(ca) => Some(ca.clone()),
            None => connect::variable("WSMB_CA")?.map(PathBuf::from),
        };
        ca.map(std::path::absolute).transpose().map_err(Failure::failed)
    }

    fn credentials(&self, url: &Url) -> Result<(String, String), Failure> {
        if url.password().is_some() {
            return Err(Failure::misuse(
                "omit the password in the address, because other users can see it; it is asked for, or read from standard input",
            ));
        }
        let user = match self.user.as_deref().or(url.user()) {
            Some(user) => user.to_owned(),
            None => {
                passwd::ask_name("User: ").ok_or_else(|| Failure::misuse("there is no user name; add --user NAME"))?
            }
        };
        if user.is_empty() || user.contains(':') {
            return Err(Failure::misuse(
                "the user name is empty or contains a colon; the password is asked for, or read from standard input",
            ));
        }
        let password = match &self.password_file {
            Some(path) => connect::read_password(path)?,
            None => passwd::ask_or_read(&user)?,
        };
        if password.is_empty() {
            return Err(Failure::misuse("the password is empty"));
        }
        Ok((user, password))
    }

    fn list(&self, contexts: &Contexts) -> Outcome {
        let style = Style::stdout();
        for (name, Context { url, user, .. }) in contexts.all() {
            if self.json {
                output::line(&serde_json::json!({ "context": name, "url": url, "user": user }).to_string())?;
            } else {
                let user = user.as_deref().unwrap_or("no user");
                output::line(&format!("{}  {url}  {user}", style.bold(format_args!("{name:16}"))))?;
            }
        }
        if contexts.all().next().is_none() && !self.json {
            output::note("no login is stored; `wsmb login URL --user NAME` stores one");
        }
        Ok(())
    }
}

/// Connects with the login. Fails if the broker refuses the login. Only prints a note if the broker cannot be reached: it may run later.
async fn verify(url: &Url, credentials: Credentials, ca: Option<PathBuf>) -> Outcome {
    let options = Options { credentials: Some(credentials), ca, ..Options::default() };
    match Client::connect(url, &options).await {
        Ok(client) => {
            // A failed close changes nothing: the broker has accepted the login.
            let _ = client.close().await;
            Ok(())
        }
        Err(error) if error.is_refusal() => Err(Failure::failed(format_args!("{error}; nothing was stored"))),
        Err(error) => {
            output::note(&format!("wsmb: warning: cannot verify the login: {error}"));
            Ok(())
        }
    }
}

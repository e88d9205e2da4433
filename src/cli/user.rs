//! `friend-lite user`: people, managed on the machine itself.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::base::clock::Clock;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config::Config;
use crate::domain::user::User;
use crate::http::auth::password::{self, Passwords};
use crate::http::auth::{add_user, normal_email};
use crate::store::{Store, UserUpdate};
use crate::supervisor;

/// Manage the people who can log in.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add somebody.
    Add {
        /// E-mail address to log in with.
        email: String,
        /// May see and manage everything.
        #[arg(long)]
        admin: bool,
        /// Name to show.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Show everybody.
    List,
    /// Change a password, which ends all logins of that user.
    Passwd {
        /// Whose.
        email: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Remove somebody who owns no conversations and no memories.
    Remove {
        /// Whom.
        email: String,
    },
}

#[derive(Debug, Args)]
struct PasswordArgs {
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

/// Runs the subcommand on `store`, and prints what it did.
///
/// # Errors
/// `NotFound`, `Conflict` and `BadInput` as the store and the rules for
/// passwords give them.
pub async fn run(args: UserArgs, store: &dyn Store, clock: &Clock, config: &Config) -> Result<()> {
    let passwords = Passwords::new(config.auth.bcrypt_cost);
    match args.command {
        Command::Add { email, admin, name, password } => {
            let email = normal_email(&email);
            if store.user_by_email(&email).await?.is_some() {
                return Err(Error::new(Kind::Conflict, format!("there is a user {email} already")));
            }
            let chosen = password.choose().await?;
            let hash = passwords.hash(&chosen.text).await?;
            let user = add_user(store, clock, &email, hash, name.as_deref(), admin).await?;
            chosen.print(&format!("added {} ({})", user.email, user.id))
        }
        Command::List => print(&table(&store.users().await?)),
        Command::Passwd { email, password } => {
            let user = find(store, &email).await?;
            let chosen = password.choose().await?;
            let hash = passwords.hash(&chosen.text).await?;
            let update = UserUpdate { password_hash: Some(hash), ..UserUpdate::default() };
            store.update_user(&user.id, update).await?;
            store.audit(clock.now(), None, "password-changed", &user.email).await?;
            chosen.print(&format!("changed the password of {}", user.email))
        }
        Command::Remove { email } => {
            let user = find(store, &email).await?;
            store.remove_user(&user.id).await.map_err(|error| match error.kind() {
                Kind::Conflict => {
                    let message = format!(
                        "{} still owns conversations or memories; nothing was removed",
                        user.email
                    );
                    Error::new(Kind::Conflict, message).with_source(error)
                }
                _ => error,
            })?;
            store.audit(clock.now(), None, "user-removed", &user.email).await?;
            print(&format!("removed {}", user.email))
        }
    }
}

async fn find(store: &dyn Store, email: &str) -> Result<User> {
    let email = normal_email(email);
    let user = store.user_by_email(&email).await?;
    user.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no user {email}")))
}

fn table(users: &[User]) -> String {
    let width = users.iter().map(|user| user.email.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("{:width$}  {:24}  {:5}  {:6}  NAME", "EMAIL", "ID", "ROLE", "ACTIVE");
    for user in users {
        text.push_str(&format!(
            "\n{:width$}  {:24}  {:5}  {:6}  {}",
            user.email,
            user.id.as_str(),
            if user.is_superuser { "admin" } else { "user" },
            if user.is_active { "yes" } else { "no" },
            user.display_name.as_deref().unwrap_or_default(),
        ));
    }
    text
}

struct Chosen {
    text: String,
    generated: bool,
}

impl Chosen {
    /// Prints `done`, and a password that nobody has seen yet.
    fn print(&self, done: &str) -> Result<()> {
        if self.generated {
            print(&format!("{done}\npassword: {}", self.text))
        } else {
            print(done)
        }
    }
}

impl PasswordArgs {
    /// The password: from standard input, asked for, or made up.
    async fn choose(&self) -> Result<Chosen> {
        let from_stdin = self.password_stdin;
        let typed = supervisor::blocking(move || {
            if from_stdin {
                return read_line().map(Some);
            }
            if !io::stdin().is_terminal() {
                return Ok(None);
            }
            let first = prompt("Password (empty: make one up): ")?;
            if first.is_empty() {
                return Ok(None);
            }
            if prompt("Once more: ")? != first {
                return Err(Error::new(Kind::BadInput, "the two passwords differ"));
            }
            Ok(Some(first))
        })
        .await?;
        match typed {
            Some(text) => {
                password::check_chosen(&text)?;
                Ok(Chosen { text, generated: false })
            }
            None => Ok(Chosen { text: password::generate(), generated: true }),
        }
    }
}

fn prompt(question: &str) -> Result<String> {
    let mut terminal = io::stderr();
    let failed = "cannot ask for a password";
    write!(terminal, "{question}").context(Kind::Internal, failed)?;
    terminal.flush().context(Kind::Internal, failed)?;
    let silence = Silence::begin()?;
    let line = read_line();
    drop(silence);
    // The newline that was typed was not shown either.
    let _ = writeln!(terminal);
    line
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context(Kind::BadInput, "cannot read a password from standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Turns off a terminal's echo, and puts it back however reading ends.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self> {
        let failed = "cannot turn off the terminal's echo";
        let before = termios::tcgetattr(io::stdin()).context(Kind::Internal, failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &silent)
            .context(Kind::Internal, failed)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn print(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context(Kind::Internal, "cannot write to standard output")
}

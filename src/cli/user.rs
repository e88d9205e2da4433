//! `friend-lite user`: people, managed on the machine itself.

use std::io::{self, BufRead, IsTerminal, Write};

use async_trait::async_trait;
use clap::{Args, Subcommand};
use rustix::termios::{self, LocalModes, OptionalActions, Termios};

use crate::base::clock::Clock;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config::Config;
use crate::domain::ids::ConversationId;
use crate::domain::user::User;
use crate::http::auth::password::{self, Passwords};
use crate::http::auth::{NewUser, add_user, normal_email};
use crate::pipeline::deletion::Deletion;
use crate::pipeline::reconcile::LiveConversations;
use crate::store::{Store, UserData, UserUpdate};
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
    /// Remove somebody.
    Remove {
        /// Whom.
        email: String,
        /// Their conversations, recordings and memories too; without this,
        /// somebody who has any is not removed.
        #[arg(long)]
        with_data: bool,
    },
}

#[derive(Debug, Args)]
struct PasswordArgs {
    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,
}

/// The daemon's conversations, seen from another process: which are live is
/// known to the store alone, and it does not let go of an open one.
pub struct Elsewhere;

#[async_trait]
impl LiveConversations for Elsewhere {
    fn is_live(&self, _: &ConversationId) -> bool {
        false
    }

    fn any_live(&self) -> bool {
        false
    }

    async fn close(&self, _: &ConversationId) {}
}

/// Runs the subcommand on `store`, and prints what it did.
///
/// # Errors
/// `NotFound`, `Conflict` and `BadInput` as the store and the rules for
/// passwords give them.
pub async fn run(
    args: UserArgs,
    store: &dyn Store,
    deletion: &Deletion,
    clock: &Clock,
    config: &Config,
) -> Result<()> {
    let passwords = Passwords::new(config.auth.bcrypt_cost);
    let users = People { store, deletion, clock, passwords };
    let done = match args.command {
        Command::Add { email, admin, name, password } => {
            users.check_free(&email).await?;
            users.add(&email, name.as_deref(), admin, password.choose().await?).await?
        }
        Command::List => table(&store.users().await?),
        Command::Passwd { email, password } => {
            let user = users.find(&email).await?;
            users.change_password(&user, password.choose().await?).await?
        }
        Command::Remove { email, with_data } => users.remove(&email, with_data).await?,
    };
    writeln!(io::stdout(), "{done}").context(Kind::Internal, "cannot write to standard output")
}

/// The steps behind the subcommands; each returns what to tell.
struct People<'a> {
    store: &'a dyn Store,
    deletion: &'a Deletion,
    clock: &'a Clock,
    passwords: Passwords,
}

impl People<'_> {
    async fn find(&self, email: &str) -> Result<User> {
        let email = normal_email(email);
        let user = self.store.user_by_email(&email).await?;
        user.ok_or_else(|| Error::new(Kind::NotFound, format!("there is no user {email}")))
    }

    /// Asked before a password is, so that nobody types one in vain.
    async fn check_free(&self, email: &str) -> Result<()> {
        let email = normal_email(email);
        match self.store.user_by_email(&email).await? {
            None => Ok(()),
            Some(_) => Err(Error::new(Kind::Conflict, format!("there is a user {email} already"))),
        }
    }

    async fn add(
        &self,
        email: &str,
        name: Option<&str>,
        admin: bool,
        chosen: Chosen,
    ) -> Result<String> {
        let hash = self.passwords.hash(&chosen.text).await?;
        let new = NewUser { is_superuser: admin, ..NewUser::new(email, hash, name) };
        let user = add_user(self.store, self.clock, None, new).await?;
        Ok(chosen.told_after(format!("added {} ({})", user.email, user.id)))
    }

    async fn change_password(&self, user: &User, chosen: Chosen) -> Result<String> {
        let hash = self.passwords.hash(&chosen.text).await?;
        let update = UserUpdate { password_hash: Some(hash), ..UserUpdate::default() };
        self.store.update_user(&user.id, update).await?;
        self.audit("password-changed", user).await?;
        Ok(chosen.told_after(format!("changed the password of {}", user.email)))
    }

    async fn remove(&self, email: &str, with_data: bool) -> Result<String> {
        let user = self.find(email).await?;
        let data = UserData { conversations: with_data, memories: with_data };
        let deleted = self.deletion.user(&user.id, data, None).await?;
        let mut told = format!("removed {}", user.email);
        if with_data {
            let (conversations, memories) = (deleted.conversations, deleted.memories);
            told += &format!(" with {conversations} conversations and {memories} memories");
        }
        Ok(told)
    }

    async fn audit(&self, action: &str, user: &User) -> Result<()> {
        self.store.audit(self.clock.now(), None, action, &user.email).await
    }
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
    /// `done`, with a password that nobody has seen yet.
    fn told_after(&self, done: String) -> String {
        if self.generated { format!("{done}\npassword: {}", self.text) } else { done }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::recording::Recordings;
    use crate::store::sqlite::testing::{Fixture, at};

    fn typed(text: &str) -> Chosen {
        Chosen { text: text.into(), generated: false }
    }

    #[tokio::test]
    async fn people_come_change_and_go() {
        let fixture = Fixture::new();
        let clock = Clock::simulated(at(0));
        let store = &fixture.store;
        let dir = fixture.dir.path().join("state");
        let recordings = Recordings::open(&dir, Duration::ZERO, clock.clone()).unwrap();
        let shared = Arc::new(store.clone());
        let deletion = Deletion::new(shared, recordings, Arc::new(Elsewhere), clock.clone());
        let passwords = Passwords::new(4);
        let people = People { store, deletion: &deletion, clock: &clock, passwords };

        let generated = Chosen { text: "made-up-one".into(), generated: true };
        let done = people.add("Ann@Example.com", Some("Ann"), true, generated).await.unwrap();
        assert!(done.starts_with("added ann@example.com ("), "{done}");
        assert!(done.ends_with("password: made-up-one"));
        let taken = people.check_free("ann@example.com").await.unwrap_err();
        assert_eq!(taken.kind(), Kind::Conflict);
        people.check_free("ben@example.com").await.unwrap();

        let ann = people.find("ANN@example.com").await.unwrap();
        let done = people.change_password(&ann, typed("another one")).await.unwrap();
        assert_eq!(done, "changed the password of ann@example.com");
        let now = people.find("ann@example.com").await.unwrap();
        assert!(now.token_epoch > ann.token_epoch);
        assert!(people.passwords.verify("another one", Some(now.password_hash)).await.unwrap());

        let conversation = fixture.opened(&ann).await;
        // Somebody has to be able to manage the daemon.
        let last = people.remove("ann@example.com", true).await.unwrap_err();
        assert!(last.message().contains("last administrator"), "{last}");
        people.add("max@example.com", None, true, typed("long enough")).await.unwrap();
        let refused = people.remove("ann@example.com", false).await.unwrap_err();
        assert!(refused.message().contains("nothing was deleted"), "{refused}");
        let refused = people.remove("ann@example.com", true).await.unwrap_err();
        assert!(refused.message().contains("still being recorded"), "{refused}");
        assert!(people.find("ann@example.com").await.unwrap().is_active);
        fixture.close(&conversation, &[]).await;
        let done = people.remove("ann@example.com", true).await.unwrap();
        assert_eq!(done, "removed ann@example.com with 1 conversations and 0 memories");

        people.add("ben@example.com", None, false, typed("long enough")).await.unwrap();
        assert_eq!(
            people.remove("ben@example.com", false).await.unwrap(),
            "removed ben@example.com"
        );
        assert_eq!(people.find("ben@example.com").await.unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn the_list_shows_who_is_who() {
        let user = crate::store::sqlite::testing::user("ann");
        let text = table(&[user]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("EMAIL "));
        assert!(lines[1].contains("ann@example.com") && lines[1].ends_with("ann"));
    }
}

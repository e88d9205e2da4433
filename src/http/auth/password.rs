//! Password hashes: bcrypt, off the async threads. Argon2 hashes, which a
//! database of the original holds, verify too.

use std::sync::Arc;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use tokio::sync::Semaphore;

use crate::base::error::{Context, Error, Kind, Result};
use crate::base::system;
use crate::supervisor;

/// The longest password bcrypt takes, in bytes: it ignores what follows.
pub const MAX_BYTES: usize = 72;

/// The most memory that an Argon2 hash may ask for, in KiB: the original asks for
/// 64 MiB.
const MAX_ARGON2_MEMORY: u32 = 256 * 1024;

/// The shortest password a person may choose, in characters.
pub const MIN_CHARACTERS: usize = 8;

/// Hashes and verifies passwords, so many at once that recording keeps a core.
#[derive(Clone, Debug)]
pub struct Passwords {
    cost: u32,
    slots: Arc<Semaphore>,
}

impl Passwords {
    /// Hashes with work factor `cost` (4 to 31).
    pub fn new(cost: u32) -> Self {
        Self { cost, slots: Arc::new(Semaphore::new(system::inference_threads())) }
    }

    /// The hash of `password`.
    ///
    /// # Errors
    /// `BadInput` when it is empty or longer than [`MAX_BYTES`]; `Config` when
    /// the cost is out of range.
    pub async fn hash(&self, password: &str) -> Result<String> {
        check(password)?;
        let (password, cost) = (password.to_owned(), self.cost);
        self.run(move || {
            bcrypt::hash(password, cost).with_context(Kind::Config, || {
                format!("auth.bcrypt_cost = {cost} cannot be used; it goes from 4 to 31")
            })
        })
        .await
    }

    /// Whether `password` belongs to `hash`. Without a hash (no such user) the
    /// same work is done and the answer is no, so that the time it takes does
    /// not tell who has an account.
    ///
    /// # Errors
    /// `Internal` when the work could not be run.
    pub async fn verify(&self, password: &str, hash: Option<String>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| dummy_hash(self.cost));
        let password = password.to_owned();
        self.run(move || {
            let matches = if hash.starts_with("$argon2") {
                verify_argon2(&password, &hash)
            } else {
                let matches = bcrypt::verify(&password, &hash).map_err(|error| error.to_string());
                matches.map(|matches| matches && check(&password).is_ok())
            };
            // A hash of another kind verifies as wrong: it was made elsewhere.
            let matches = matches.unwrap_or_else(|error| {
                tracing::warn!("a stored password hash cannot be read: {error}");
                false
            });
            Ok(matches && known)
        })
        .await
    }

    /// Whether `hash` is of another kind than those that are made here, or takes
    /// less work to guess.
    pub fn is_outdated(&self, hash: &str) -> bool {
        let cost = |hash: &str| hash.parse::<bcrypt::HashParts>().ok().map(|hash| hash.get_cost());
        cost(hash).is_none_or(|cost| cost < self.cost)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _slot = self
            .slots
            .acquire()
            .await
            .context(Kind::Internal, "password hashing has been shut down")?;
        supervisor::blocking(work).await
    }
}

/// Whether `password` belongs to the Argon2 `hash`; or why that cannot be told.
fn verify_argon2(password: &str, hash: &str) -> std::result::Result<bool, String> {
    let hash = PasswordHash::new(hash).map_err(|error| error.to_string())?;
    let params = Params::try_from(&hash).map_err(|error| error.to_string())?;
    if params.m_cost() > MAX_ARGON2_MEMORY {
        return Err(format!("it asks for {} KiB of memory", params.m_cost()));
    }
    Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Whether `password` can be hashed at all.
///
/// # Errors
/// `BadInput`, saying what is wrong with it.
pub fn check(password: &str) -> Result<()> {
    if password.is_empty() {
        return Err(Error::new(Kind::BadInput, "the password is empty"));
    }
    if password.len() > MAX_BYTES {
        let message = format!(
            "the password is {} bytes long; at most {MAX_BYTES} are possible",
            password.len()
        );
        return Err(Error::new(Kind::BadInput, message));
    }
    Ok(())
}

/// Whether a person may choose `password`.
///
/// # Errors
/// `BadInput`, saying what is wrong with it.
pub fn check_chosen(password: &str) -> Result<()> {
    check(password)?;
    if password.chars().count() < MIN_CHARACTERS {
        let message =
            format!("the password is too short; use at least {MIN_CHARACTERS} characters");
        return Err(Error::new(Kind::BadInput, message));
    }
    Ok(())
}

/// A random password that can be read aloud: four groups of four characters of
/// an alphabet of 32 without look-alikes, 80 bits together.
pub fn generate() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let random: [u8; 16] = rand::random();
    let mut password = String::with_capacity(19);
    for (i, byte) in random.into_iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            password.push('-');
        }
        password.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    password
}

/// A well-formed hash that takes the same work and that no password is known for.
fn dummy_hash(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let passwords = Passwords::new(4);
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$2b$04$"));
        assert!(passwords.verify("correct horse", Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse ", Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("", Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn what_bcrypt_would_cut_off_is_refused() {
        let passwords = Passwords::new(4);
        let longest = "x".repeat(MAX_BYTES);
        let hash = passwords.hash(&longest).await.unwrap();
        assert!(passwords.verify(&longest, Some(hash.clone())).await.unwrap());
        let longer = format!("{longest}y");
        let error = passwords.hash(&longer).await.unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        assert!(error.message().contains("73 bytes"), "{error}");
        assert!(!passwords.verify(&longer, Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn unknown_users_and_foreign_hashes_are_plain_refusals() {
        let passwords = Passwords::new(4);
        assert!(!passwords.verify("anything", None).await.unwrap());
        for foreign in ["$argon2id$v=19$x", "$argon2id$", "pbkdf2_sha256$1$x$y", ""] {
            assert!(!passwords.verify("anything", Some(foreign.into())).await.unwrap());
        }
        // The dummy must really be hashed, not rejected as malformed.
        assert_eq!(bcrypt::verify("anything", &dummy_hash(4)).ok(), Some(false));
    }

    /// "correct horse", as the original's library (`pwdlib` on `argon2-cffi`)
    /// hashes it.
    const IMPORTED: &str = "$argon2id$v=19$m=65536,t=3,p=4$JaD1Y1D7i8ui2a4RKMCSDQ\
                            $UT//ZDFfcHXXHHKjRcIiwwl3TCwlPiaOfC/Vkds28DA";
    /// A hundred times the letter x, with less work.
    const LEAN: &str = "$argon2id$v=19$m=1024,t=2,p=2$FaptyoadLnbtTbRYqGQVag\
                        $M9Cf0asTEXvvPUWV46MpqivQya0UwhLYSfXFkO0hj0A";

    #[tokio::test]
    async fn hashes_of_the_original_verify_and_are_outdated() {
        let passwords = Passwords::new(4);
        let verify = async |password: &str, hash: &str| {
            passwords.verify(password, Some(hash.to_owned())).await.unwrap()
        };
        assert!(verify("correct horse", IMPORTED).await);
        assert!(verify(&"x".repeat(100), LEAN).await);
        for wrong in ["", "x", &"x".repeat(99)] {
            assert!(!verify(wrong, LEAN).await);
        }
        // One that would take all the memory there is.
        assert!(!verify("correct horse", &IMPORTED.replace("m=65536", "m=4194304")).await);

        let ours = passwords.hash("correct horse").await.unwrap();
        assert!(passwords.is_outdated(LEAN) && !passwords.is_outdated(&ours));
        assert!(Passwords::new(5).is_outdated(&ours));
        assert!(!passwords.is_outdated(&ours.replace("$04$", "$12$")));
    }

    #[test]
    fn generated_passwords_are_readable_and_differ() {
        let (one, other) = (generate(), generate());
        assert_ne!(one, other);
        assert_eq!(one.split('-').map(str::len).collect::<Vec<_>>(), [4, 4, 4, 4]);
        assert!(check_chosen(&one).is_ok());
    }
}

//! A language model of a service outside, and the one on this machine that steps
//! in while that is away.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Generate, LanguageModel, Told};
use crate::base::error::{Error, Result};

/// Two language models, the preferred one first.
pub struct Failover {
    first: Arc<dyn LanguageModel>,
    second: Arc<dyn LanguageModel>,
    /// The one that wrote the latest answer.
    wrote: Mutex<Option<String>>,
}

impl Failover {
    /// `second` steps in for `first`.
    pub fn new(first: Arc<dyn LanguageModel>, second: Arc<dyn LanguageModel>) -> Self {
        Self { first, second, wrote: Mutex::default() }
    }

    fn wrote(&self, model: &dyn LanguageModel) {
        *self.wrote.lock().unwrap_or_else(PoisonError::into_inner) = Some(model.name());
    }

    /// Whether the second is to be asked, after that failure of the first.
    fn steps_in(&self, error: &Error) -> bool {
        tracing::debug!("the language model outside failed: {}", error.report());
        self.second.is_ready()
    }
}

#[async_trait]
impl LanguageModel for Failover {
    fn name(&self) -> String {
        let wrote = self.wrote.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wrote.unwrap_or_else(|| self.first.name())
    }

    fn is_ready(&self) -> bool {
        self.first.is_ready() || self.second.is_ready()
    }

    async fn generate(&self, request: Generate) -> Result<String> {
        let outcome = match self.first.generate(request.clone()).await {
            Ok(text) => Ok((text, &self.first)),
            Err(error) if self.steps_in(&error) => {
                self.second.generate(request).await.map(|text| (text, &self.second))
            }
            Err(error) => Err(error),
        };
        outcome.map(|(text, model)| {
            self.wrote(model.as_ref());
            text
        })
    }

    async fn write(&self, request: Generate, told: &mut Told<'_>) -> Result<String> {
        let mut begun = false;
        let mut tell = |piece: &str| {
            begun = true;
            told(piece);
        };
        let outcome = self.first.write(request.clone(), &mut tell).await;
        let (text, model) = match outcome {
            Ok(text) => (text, &self.first),
            // What was told cannot be taken back.
            Err(error) if begun || !self.steps_in(&error) => return Err(error),
            Err(_) => (self.second.write(request, told).await?, &self.second),
        };
        self.wrote(model.as_ref());
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;
    use crate::domain::job::Lane;

    struct Model {
        name: &'static str,
        /// Says so much before it fails.
        fails: Option<&'static str>,
    }

    #[async_trait]
    impl LanguageModel for Model {
        fn name(&self) -> String {
            self.name.into()
        }

        fn is_ready(&self) -> bool {
            true
        }

        async fn generate(&self, _: Generate) -> Result<String> {
            match self.fails {
                Some(_) => Err(Error::new(Kind::Away, "gone")),
                None => Ok(self.name.to_owned()),
            }
        }

        async fn write(&self, request: Generate, told: &mut Told<'_>) -> Result<String> {
            told(self.fails.unwrap_or(self.name));
            self.generate(request).await
        }
    }

    #[tokio::test]
    async fn the_second_steps_in_unless_something_was_told() {
        let request = Generate {
            messages: Vec::new(),
            schema: None,
            max_tokens: 1,
            temperature: 0.0,
            seed: 1,
            lane: Lane::Live,
        };
        let pair = |fails| {
            let first = Arc::new(Model { name: "outside", fails });
            Failover::new(first, Arc::new(Model { name: "local", fails: None }))
        };
        let works = pair(None);
        assert_eq!(works.generate(request.clone()).await.unwrap(), "outside");
        assert_eq!(works.name(), "outside");
        let away = pair(Some("Well"));
        assert_eq!(away.generate(request.clone()).await.unwrap(), "local");
        assert_eq!(away.name(), "local");
        let mut heard = String::new();
        let cut = away.write(request, &mut |piece| heard.push_str(piece)).await;
        assert_eq!((cut.unwrap_err().kind(), heard.as_str()), (Kind::Away, "Well"));
    }
}

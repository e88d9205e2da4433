//! What happens to audio after it is recorded: each step is a job.

pub mod recall;

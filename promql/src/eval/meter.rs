//! What an evaluation may still cost.
//!
//! Evaluation takes memory and samples as it makes results, and gives back what its operands took once a result is there: nodes nest, so
//! a mark before and a settlement after are enough. Work is counted only to ask now and then whether to go on.

use std::cell::Cell;

use super::EvalError;
use crate::limits::Limits;

/// How much work passes between two questions whether to go on: a fraction of a millisecond.
const CHECK: usize = 1 << 16;

/// The account of one evaluation.
pub(crate) struct Meter<'a> {
    limits: &'a Limits,
    cancelled: &'a dyn Fn() -> bool,
    held: Cell<Held>,
    work: Cell<usize>,
}

/// What is held at one time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) samples: usize,
    pub(crate) bytes: usize,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(limits: &'a Limits, cancelled: &'a dyn Fn() -> bool) -> Self {
        Self { limits, cancelled, held: Cell::default(), work: Cell::new(CHECK) }
    }

    /// Does so much work: about a nanosecond each.
    pub(crate) fn work(&self, amount: usize) -> Result<(), EvalError> {
        let work = self.work.get() + amount;
        self.work.set(work);
        if work < CHECK {
            return Ok(());
        }
        self.work.set(0);
        if (self.cancelled)() { Err(EvalError::Cancelled) } else { Ok(()) }
    }

    /// Takes memory that is about to be allocated.
    pub(crate) fn bytes(&self, bytes: usize) -> Result<(), EvalError> {
        let mut held = self.held.get();
        held.bytes = held.bytes.saturating_add(bytes);
        self.held.set(held);
        if held.bytes > self.limits.bytes { Err(EvalError::Memory { limit: self.limits.bytes }) } else { Ok(()) }
    }

    /// Takes samples.
    pub(crate) fn samples(&self, samples: usize) -> Result<(), EvalError> {
        let mut held = self.held.get();
        held.samples = held.samples.saturating_add(samples);
        self.held.set(held);
        self.peek(0)
    }

    /// Whether so many samples more could be held for a moment.
    pub(crate) fn peek(&self, samples: usize) -> Result<(), EvalError> {
        let limit = self.limits.samples;
        if self.held.get().samples.saturating_add(samples) > limit { Err(EvalError::Samples { limit }) } else { Ok(()) }
    }

    /// Memory that may still be taken.
    pub(crate) fn left(&self) -> usize {
        self.limits.bytes.saturating_sub(self.held.get().bytes)
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.limits
    }

    /// What is held now.
    pub(crate) fn mark(&self) -> Held {
        self.held.get()
    }

    /// Gives back what was taken since a mark, but for what stays.
    pub(crate) fn settle(&self, mark: Held, stays: Held) -> Result<(), EvalError> {
        self.held.set(mark);
        self.bytes(stays.bytes)?;
        self.samples(stays.samples)
    }
}

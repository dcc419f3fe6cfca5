//! For people who implement the traits: conformance suites, and the cluster simulator.
//!
//! Behind the feature `testing`. A suite is a function that takes a maker of your part and panics
//! with the promise that was broken.

pub mod partitioner;
pub mod simulation;
pub mod storage;
pub mod transport;

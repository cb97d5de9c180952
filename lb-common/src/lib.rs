//! What the kernel programs and the agent must agree on.
#![cfg_attr(not(test), no_std)]

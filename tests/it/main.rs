//! Everything that needs a running gateway, a lab or the source tree, in one binary.

mod layers;

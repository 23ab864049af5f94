//! AWS, the only module that names its SDK: credentials of this host and the tokens that they sign.

pub mod credentials;
pub mod token;

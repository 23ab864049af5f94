//! AWS, the only module that names its SDK: credentials of this host, the tokens that they sign, and STS.

pub mod credentials;
pub mod presign;
pub mod sts;
pub mod token;

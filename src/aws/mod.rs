//! AWS, the only module that names its SDK: credentials of this host, the tokens that they sign, STS and Session Manager.

pub mod credentials;
mod https;
pub mod presign;
pub mod ssm;
pub mod sts;
pub mod token;

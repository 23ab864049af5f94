//! AWS, the only module that names its SDK: credentials of this host, the tokens that they sign, STS, Session Manager and RDS.

pub mod caller;
pub mod credentials;
mod date;
mod https;
pub mod imds;
pub mod presign;
pub mod rds;
pub mod ssm;
pub mod sts;
pub mod token;

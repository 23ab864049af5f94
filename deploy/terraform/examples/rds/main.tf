# An RDS instance with IAM authentication, and a bastion in front of it, in a VPC that has private subnets.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0, < 7.0"
    }
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  description = "Where all of it is."
  type        = string
}

variable "vpc_id" {
  description = "VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, in two availability zones or more."
  type        = list(string)
}

variable "ami_id" {
  description = "Image of the bastion."
  type        = string
}

variable "permission_set" {
  description = "Permission set of IAM Identity Center whose users may read."
  type        = string
}

resource "aws_db_subnet_group" "orders" {
  name       = "orders"
  subnet_ids = var.subnet_ids
}

resource "aws_security_group" "orders" {
  name        = "orders"
  description = "Database orders: the bastion in"
  vpc_id      = var.vpc_id
}

resource "aws_db_parameter_group" "orders" {
  name        = "orders"
  family      = "postgres17"
  description = "Database orders"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
}

resource "aws_db_instance" "orders" {
  #checkov:skip=CKV_AWS_118: enhanced monitoring has little to do with the gateway, and costs extra
  #checkov:skip=CKV_AWS_157: one availability zone is enough for an example
  #checkov:skip=CKV_AWS_354: Performance Insights uses AWS' own key here
  identifier     = "orders"
  engine         = "postgres"
  engine_version = "17"
  instance_class = "db.t4g.medium"
  db_name        = "orders"

  # Kept in Secrets Manager, for the one login that makes the users; it must not become a member of rds_iam.
  username                    = "owner"
  manage_master_user_password = true

  iam_database_authentication_enabled = true

  allocated_storage               = 20
  storage_type                    = "gp3"
  storage_encrypted               = true
  ca_cert_identifier              = "rds-ca-rsa2048-g1"
  parameter_group_name            = aws_db_parameter_group.orders.name
  db_subnet_group_name            = aws_db_subnet_group.orders.name
  vpc_security_group_ids          = [aws_security_group.orders.id]
  publicly_accessible             = false
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade", "iam-db-auth-error"]
  performance_insights_enabled    = true
  auto_minor_version_upgrade      = true
  backup_retention_period         = 7
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  final_snapshot_identifier       = "orders-last"
}

module "postern" {
  source = "../.."

  name       = "postern-orders"
  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids
  ami_id     = var.ami_id

  targets = [{
    name         = "orders"
    endpoint     = aws_db_instance.orders.endpoint
    resource_ids = [aws_db_instance.orders.resource_id]
    databases    = [aws_db_instance.orders.db_name]
    users        = ["app_ro"]
  }]

  rules = [{
    principals      = ["*"]
    permission_sets = [var.permission_set]
    targets         = ["orders"]
    users           = ["app_ro"]
    read_only       = true
  }]

  database_security_groups = {
    orders = { security_group_id = aws_security_group.orders.id, port = 5432 }
  }

  # The VPC has a NAT gateway.
  https_egress = { cidrs = ["0.0.0.0/0"] }
}

output "person_policy_arn" {
  description = "For the permission set."
  value       = module.postern.person_policy_arn
}

output "connect_commands" {
  description = "For people."
  value       = module.postern.connect_commands
}

output "grants_sql" {
  description = "For the owner of the database, once."
  value       = module.postern.grants_sql
}

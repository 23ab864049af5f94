# An Aurora cluster with IAM authentication, and a bastion in front of it, in a VPC without a way to the internet.

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
  description = "Private subnets, each in an availability zone of its own, two or more."
  type        = list(string)
}

variable "route_table_ids" {
  description = "Their route tables."
  type        = list(string)
}

variable "ami_id" {
  description = "Image of the bastion."
  type        = string
}

variable "readers" {
  description = "Permission set of IAM Identity Center whose users may read."
  type        = string
}

variable "writers" {
  description = "Permission set of IAM Identity Center whose users may write, by day."
  type        = string
}

resource "aws_db_subnet_group" "orders" {
  name       = "orders"
  subnet_ids = var.subnet_ids
}

resource "aws_security_group" "orders" {
  name        = "orders"
  description = "Cluster orders: the bastion in"
  vpc_id      = var.vpc_id
}

resource "aws_rds_cluster_parameter_group" "orders" {
  name        = "orders"
  family      = "aurora-postgresql17"
  description = "Cluster orders"

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

resource "aws_rds_cluster" "orders" {
  #checkov:skip=CKV_AWS_327: encrypted with AWS' own key here
  #checkov:skip=CKV2_AWS_8: Aurora's own backups are enough for an example
  cluster_identifier = "orders"
  engine             = "aurora-postgresql"
  engine_version     = "17.5"
  database_name      = "orders"

  # Kept in Secrets Manager, for the one login that makes the users; it must not become a member of rds_iam.
  master_username             = "owner"
  manage_master_user_password = true

  # Of the cluster: its instances have no switch of their own.
  iam_database_authentication_enabled = true

  storage_encrypted               = true
  db_cluster_parameter_group_name = aws_rds_cluster_parameter_group.orders.name
  db_subnet_group_name            = aws_db_subnet_group.orders.name
  vpc_security_group_ids          = [aws_security_group.orders.id]
  enabled_cloudwatch_logs_exports = ["postgresql", "iam-db-auth-error"]
  backup_retention_period         = 7
  copy_tags_to_snapshot           = true
  deletion_protection             = true
  final_snapshot_identifier       = "orders-last"
}

resource "aws_rds_cluster_instance" "orders" {
  #checkov:skip=CKV_AWS_118: enhanced monitoring has little to do with the gateway, and costs extra
  #checkov:skip=CKV_AWS_354: Performance Insights uses AWS' own key here
  count = 2

  identifier                   = "orders-${count.index}"
  cluster_identifier           = aws_rds_cluster.orders.id
  engine                       = aws_rds_cluster.orders.engine
  engine_version               = aws_rds_cluster.orders.engine_version
  instance_class               = "db.t4g.medium"
  ca_cert_identifier           = "rds-ca-rsa2048-g1"
  publicly_accessible          = false
  performance_insights_enabled = true
  auto_minor_version_upgrade   = true
}

module "postern" {
  source = "../.."

  name       = "postern-orders"
  vpc_id     = var.vpc_id
  subnet_ids = var.subnet_ids
  ami_id     = var.ami_id

  # The writer and the readers are targets of their own; the resource id is the cluster's for both.
  targets = [
    {
      name         = "orders"
      endpoint     = "${aws_rds_cluster.orders.endpoint}:5432"
      resource_ids = [aws_rds_cluster.orders.cluster_resource_id]
      databases    = ["orders"]
      users        = ["app_rw"]
    },
    {
      name         = "orders-reading"
      endpoint     = "${aws_rds_cluster.orders.reader_endpoint}:5432"
      resource_ids = [aws_rds_cluster.orders.cluster_resource_id]
      databases    = ["orders"]
      users        = ["app_ro"]
    },
  ]

  rules = [
    {
      principals      = ["*"]
      permission_sets = [var.readers, var.writers]
      targets         = ["orders-reading"]
      users           = ["app_ro"]
    },
    {
      principals      = ["*"]
      permission_sets = [var.writers]
      targets         = ["orders"]
      users           = ["app_rw"]
      hours           = ["Mon-Fri 07:00-19:00"]
      timezone        = "Europe/Berlin"
      statements      = "masked"
    },
  ]

  database_security_groups = {
    orders = { security_group_id = aws_security_group.orders.id }
  }

  # There is no NAT gateway: all that the bastion needs of AWS comes into the VPC, and packages of Amazon Linux with "s3".
  vpc_endpoints   = ["ssm", "ssmmessages", "sts", "rds", "logs", "autoscaling", "s3"]
  route_table_ids = var.route_table_ids

  # So that postern check can tell what RDS says of the cluster.
  allow_rds_describe = true
}

output "person_policy_arn" {
  description = "For both permission sets."
  value       = module.postern.person_policy_arn
}

output "connect_commands" {
  description = "For people."
  value       = module.postern.connect_commands
}

output "grants_sql" {
  description = "For the owner of the cluster, once."
  value       = module.postern.grants_sql
}

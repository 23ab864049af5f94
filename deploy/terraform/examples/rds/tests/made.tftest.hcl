# With a provider that makes everything up: at first nothing is known of the database, then all is.

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_ami" {
    defaults = { architecture = "arm64", root_device_name = "/dev/xvda" }
  }
  mock_data "aws_ec2_instance_type" {
    defaults = { supported_architectures = ["arm64"] }
  }
  mock_resource "aws_security_group" {
    defaults = { id = "sg-0123456789abcdef0" }
  }
  mock_resource "aws_db_instance" {
    defaults = { endpoint = "orders.abc.eu-west-1.rds.amazonaws.com:5432", resource_id = "db-ABCDEFGHIJKL" }
  }
}

variables {
  region         = "eu-west-1"
  vpc_id         = "vpc-0123456789abcdef0"
  subnet_ids     = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  ami_id         = "ami-0123456789abcdef0"
  permission_set = "Analyst"
}

run "planned" {
  command = plan
}

run "made" {
  assert {
    condition     = aws_db_instance.orders.iam_database_authentication_enabled
    error_message = "IAM authentication is off."
  }

  assert {
    condition     = output.connect_commands.orders == "postern connect orders --region eu-west-1 --document postern-orders-connect --user app_ro --database orders"
    error_message = output.connect_commands.orders
  }
}

# Inputs that are refused, each for one reason.

mock_provider "aws" {
  mock_resource "aws_ssm_parameter" {
    defaults = { version = 7 }
  }
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
}

variables {
  vpc_id     = "vpc-0123456789abcdef0"
  subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  ami_id     = "ami-0123456789abcdef0"

  targets = [
    {
      name         = "orders"
      endpoint     = "orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432"
      resource_ids = ["cluster-ABCDEFGHIJKL"]
      databases    = ["orders", "says \"<hello>\" & é"]
      users        = ["app_ro", "app_rw"]
      pool         = { mode = "auto", size = 10, min_idle = 0, idle_timeout = "5m" }
      iam          = { logins_per_second = 10, burst = 10 }
      timeouts     = { connect = "3s", idle_in_transaction = "10m" }
    },
    {
      name         = "billing"
      endpoint     = "billing.abc.eu-central-1.rds.amazonaws.com"
      region       = "eu-central-1"
      resource_ids = ["db-ABCDEFGHIJKL", "db-MNOPQRSTUVWX"]
      databases    = ["billing"]
      users        = ["app_ro"]
    },
  ]

  rules = [
    {
      principals      = ["*"]
      accounts        = ["123456789012"]
      permission_sets = ["Analyst"]
      targets         = ["orders", "billing"]
      users           = ["app_ro"]
      read_only       = true
      max_clients     = 5
    },
    {
      principals = ["arn:aws:sts::123456789012:assumed-role/Deploy/"]
      targets    = ["orders"]
      databases  = ["orders"]
      users      = ["app_rw"]
      hours      = ["Mon-Fri 07:00-19:00"]
      timezone   = "Europe/Berlin"
      statements = "masked"
    },
    {
      principals = ["arn:aws:iam::123456789012:user/operator"]
      console    = "admin"
    },
  ]

  database_security_groups = {
    orders  = { security_group_id = "sg-0123456789abcdef0" }
    billing = { security_group_id = "sg-0123456789abcdef1", port = 5433, add_ingress = false }
  }

  https_egress = { cidrs = ["0.0.0.0/0"] }
}

run "a_name_with_capitals" {
  command = plan

  variables {
    name = "Postern"
  }

  expect_failures = [var.name]
}

run "no_vpc" {
  command = plan

  variables {
    vpc_id = "sg-1"
  }

  expect_failures = [var.vpc_id]
}

run "no_subnets" {
  command = plan

  variables {
    subnet_ids = []
  }

  expect_failures = [var.subnet_ids]
}

run "no_image" {
  command = plan

  variables {
    ami_id = "latest"
  }

  expect_failures = [var.ami_id]
}

run "images_of_anybody" {
  command = plan

  variables {
    ami_owners = ["*"]
  }

  expect_failures = [var.ami_owners]
}

run "no_instance_type" {
  command = plan

  variables {
    instance_type = "small"
  }

  expect_failures = [var.instance_type]
}

run "no_bastion" {
  command = plan

  variables {
    capacity = 0
  }

  expect_failures = [var.capacity]
}

run "a_root_volume_that_is_too_small" {
  command = plan

  variables {
    root_volume_gib = 4
  }

  expect_failures = [var.root_volume_gib]
}

run "an_alias_for_the_volumes_key" {
  command = plan

  variables {
    ebs_kms_key_arn = "alias/aws/ebs"
  }

  expect_failures = [var.ebs_kms_key_arn]
}

run "no_time_to_start" {
  command = plan

  variables {
    launch_seconds = 5
  }

  expect_failures = [var.launch_seconds]
}

run "no_time_to_drain" {
  command = plan

  variables {
    drain_seconds = 0
  }

  expect_failures = [var.drain_seconds]
}

run "no_boundary" {
  command = plan

  variables {
    permissions_boundary_arn = "boundary"
  }

  expect_failures = [var.permissions_boundary_arn]
}

run "no_targets" {
  command = plan

  variables {
    targets = []
  }

  expect_failures = [var.targets]
}

run "two_targets_of_one_name" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }, { name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "every_database" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["*"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "databases_by_a_wildcard" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-*"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "no_resource_ids" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = [], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "an_endpoint_and_discovery" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["u"], discover = { cluster = "x" } }]
  }

  expect_failures = [var.targets]
}

run "neither_endpoint_nor_discovery" {
  command = plan

  variables {
    targets = [{ name = "orders", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "two_ways_of_discovery" {
  command = plan

  variables {
    targets = [{ name = "orders", resource_ids = ["db-A"], databases = ["d"], users = ["u"], discover = { cluster = "x", instance = "y" } }]
  }

  expect_failures = [var.targets]
}

run "an_endpoint_with_a_scheme" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "postgres://a.b", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "every_user" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["*"] }]
  }

  expect_failures = [var.targets]
}

run "users_by_a_wildcard" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["app_?"] }]
  }

  expect_failures = [var.targets]
}

run "a_user_that_is_a_variable_of_iam" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["$${aws:username}"] }]
  }

  expect_failures = [var.targets]
}

run "no_users" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = [] }]
  }

  expect_failures = [var.targets]
}

run "no_databases" {
  command = plan

  variables {
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = [], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "no_rules" {
  command = plan

  variables {
    rules = []
  }

  expect_failures = [var.rules]
}

run "a_rule_for_nothing" {
  command = plan

  variables {
    rules = [{ principals = ["*"] }]
  }

  expect_failures = [var.rules]
}

run "a_rule_for_two_things" {
  command = plan

  variables {
    rules = [{ principals = ["*"], console = "stats", targets = ["orders"], users = ["u"] }]
  }

  expect_failures = [var.rules]
}

run "trust" {
  command = plan

  variables {
    identity = { sources = ["trust"] }
  }

  expect_failures = [var.identity]
}

run "an_unknown_source_of_sessions" {
  command = plan

  variables {
    identity = { ssm_source = "nobody" }
  }

  expect_failures = [var.identity]
}

run "sts_without_a_name" {
  command = plan

  variables {
    identity = { sources = ["sts"] }
  }

  expect_failures = [var.identity]
}

run "a_privileged_port" {
  command = plan

  variables {
    gateway_port = 22
  }

  expect_failures = [var.gateway_port]
}

run "an_unknown_way_when_the_audit_log_is_full" {
  command = plan

  variables {
    audit_on_full = "wait"
  }

  expect_failures = [var.audit_on_full]
}

run "no_security_groups" {
  command = plan

  variables {
    database_security_groups = {}
  }

  expect_failures = [var.database_security_groups]
}

run "an_unknown_endpoint" {
  command = plan

  variables {
    vpc_endpoints = ["ec2"]
  }

  expect_failures = [var.vpc_endpoints]
}

run "endpoints_for_everybody" {
  command = plan

  variables {
    vpc_endpoint_client_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.vpc_endpoint_client_cidrs]
}

run "an_account_that_is_none" {
  command = plan

  variables {
    vpc_endpoint_accounts = ["*"]
  }

  expect_failures = [var.vpc_endpoint_accounts]
}

run "no_way_to_session_manager" {
  command = plan

  variables {
    https_egress = {}
  }

  expect_failures = [var.https_egress]
}

run "a_tag_that_matches_others" {
  command = plan

  variables {
    connect_tag = { key = "postern", value = "*" }
  }

  expect_failures = [var.connect_tag]
}

run "an_alias_for_the_key" {
  command = plan

  variables {
    kms_key_arn = "alias/mine"
  }

  expect_failures = [var.kms_key_arn]
}

run "days_that_cloudwatch_has_not" {
  command = plan

  variables {
    audit_retention_days = 31
  }

  expect_failures = [var.audit_retention_days]
}

run "days_that_cloudwatch_has_not_for_the_journal" {
  command = plan

  variables {
    journal_retention_days = 2
  }

  expect_failures = [var.journal_retention_days]
}

run "no_route_table_for_s3" {
  command = plan

  variables {
    vpc_endpoints = ["s3"]
  }

  expect_failures = [var.route_table_ids]
}

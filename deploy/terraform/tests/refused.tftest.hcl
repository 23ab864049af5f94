# Inputs that are refused, each for the reason that stands above it. As many stand in one run as there are inputs: each must be refused.

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
      region       = "eu-west-1"
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

run "refused_1" {
  command = plan

  variables {
    # A name with capitals.
    name = "Postern"
    # No VPC.
    vpc_id = "sg-1"
    # No subnets.
    subnet_ids = []
    # No image.
    ami_id = "latest"
    # Images of anybody.
    ami_owners = ["*"]
    # No instance type.
    instance_type = "small"
    # No bastion.
    capacity = 0
    # A root volume that is too small.
    root_volume_gib = 4
    # An alias for the volumes' key.
    ebs_kms_key_arn = "alias/aws/ebs"
    # No time to start.
    launch_seconds = 5
    # No time to drain.
    drain_seconds = 0
    # No boundary.
    permissions_boundary_arn = "boundary"
    # No targets.
    targets = []
    # No rules.
    rules = []
    # Whoever reaches the port.
    identity = { sources = ["trust"] }
    # A privileged port.
    gateway_port = 22
    # An unknown way when the audit log is full.
    audit_on_full = "wait"
    # No security groups.
    database_security_groups = {}
    # An unknown endpoint.
    vpc_endpoints = ["ec2"]
    # Endpoints for everybody.
    vpc_endpoint_client_cidrs = ["0.0.0.0/0"]
    # An account that is none.
    vpc_endpoint_accounts = ["*"]
    # A tag that matches others.
    connect_tag = { key = "postern", value = "*" }
    # An alias for the key.
    kms_key_arn = "alias/mine"
    # Days that CloudWatch has not.
    audit_retention_days = 31
    # The same for the journal.
    journal_retention_days = 2
  }

  expect_failures = [var.name, var.vpc_id, var.subnet_ids, var.ami_id, var.ami_owners, var.instance_type, var.capacity, var.root_volume_gib, var.ebs_kms_key_arn, var.launch_seconds, var.drain_seconds, var.permissions_boundary_arn, var.targets, var.rules, var.identity, var.gateway_port, var.audit_on_full, var.database_security_groups, var.vpc_endpoints, var.vpc_endpoint_client_cidrs, var.vpc_endpoint_accounts, var.connect_tag, var.kms_key_arn, var.audit_retention_days, var.journal_retention_days]
}

run "refused_2" {
  command = plan

  variables {
    # Two targets of one name.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }, { name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
    # A rule for nothing.
    rules = [{ principals = ["*"] }]
    # An unknown source of sessions.
    identity = { ssm_source = "nobody" }
    # A way out that is no range.
    https_egress = { cidrs = ["everywhere"] }
  }

  expect_failures = [var.https_egress, var.targets, var.rules, var.identity]
}

run "refused_3" {
  command = plan

  variables {
    # Every database.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["*"], databases = ["d"], users = ["u"] }]
    # A rule for two things.
    rules = [{ principals = ["*"], console = "stats", targets = ["orders"], users = ["u"] }]
    # STS without a name.
    identity = { sources = ["sts"] }
  }

  expect_failures = [var.targets, var.rules, var.identity]
}

run "refused_4" {
  command = plan

  variables {
    # Databases by a wildcard.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-*"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "refused_5" {
  command = plan

  variables {
    # No resource ids.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = [], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "refused_6" {
  command = plan

  variables {
    # An endpoint and discovery.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["u"], discover = { cluster = "x" } }]
  }

  expect_failures = [var.targets]
}

run "refused_7" {
  command = plan

  variables {
    # Neither endpoint nor discovery.
    targets = [{ name = "orders", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "refused_8" {
  command = plan

  variables {
    # Two ways of discovery.
    targets = [{ name = "orders", resource_ids = ["db-A"], databases = ["d"], users = ["u"], discover = { cluster = "x", instance = "y" } }]
  }

  expect_failures = [var.targets]
}

run "refused_9" {
  command = plan

  variables {
    # An endpoint with a scheme.
    targets = [{ name = "orders", endpoint = "postgres://a.b", resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "refused_10" {
  command = plan

  variables {
    # Every user.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["*"] }]
  }

  expect_failures = [var.targets]
}

run "refused_11" {
  command = plan

  variables {
    # Users by a wildcard.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["app_?"] }]
  }

  expect_failures = [var.targets]
}

run "refused_12" {
  command = plan

  variables {
    # A user that is a variable of IAM.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = ["$${aws:username}"] }]
  }

  expect_failures = [var.targets]
}

run "refused_13" {
  command = plan

  variables {
    # No users.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = ["d"], users = [] }]
  }

  expect_failures = [var.targets]
}

run "refused_14" {
  command = plan

  variables {
    # No databases.
    targets = [{ name = "orders", endpoint = "a.b.eu-west-1.rds.amazonaws.com", resource_ids = ["db-A"], databases = [], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "no_way_to_session_manager" {
  command = plan

  variables {
    https_egress = {}
  }

  expect_failures = [var.https_egress]
}

run "no_route_table_for_s3" {
  command = plan

  variables {
    vpc_endpoints = ["s3"]
  }

  expect_failures = [var.route_table_ids]
}

run "an_endpoint_that_no_cluster_has" {
  command = plan

  variables {
    targets = [{ name = "orders", discover = { cluster = "x", endpoint = "any" }, resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

run "a_name_for_many_of_one" {
  command = plan

  variables {
    targets = [{ name = "orders-*", discover = { cluster = "x" }, resource_ids = ["db-A"], databases = ["d"], users = ["u"] }]
  }

  expect_failures = [var.targets]
}

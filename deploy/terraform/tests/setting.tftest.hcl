# Checks of the module as it stands, with a provider that makes everything up. What it makes of these inputs is compared with the files in
# expected/, which other tests read: the gateway's own (`config check`), and those of policies.

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

run "what_is_made" {
  assert {
    condition     = aws_ssm_parameter.config.value == file("tests/expected/postern.toml")
    error_message = "postern.toml isn't that of tests/expected, but:\n${aws_ssm_parameter.config.value}"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.bastion.policy) == jsondecode(file("tests/expected/bastion.json"))
    error_message = "The bastion's policy isn't that of tests/expected, but:\n${aws_iam_role_policy.bastion.policy}"
  }

  assert {
    condition     = jsondecode(aws_iam_policy.person.policy) == jsondecode(file("tests/expected/person.json"))
    error_message = "The people's policy isn't that of tests/expected, but:\n${aws_iam_policy.person.policy}"
  }

  assert {
    condition     = jsondecode(aws_ssm_document.session.content) == jsondecode(file("tests/expected/session.json"))
    error_message = "The session document isn't that of tests/expected, but:\n${aws_ssm_document.session.content}"
  }

  assert {
    condition     = base64decode(aws_launch_template.this.user_data) == file("tests/expected/user-data")
    error_message = "The user data isn't that of tests/expected, but:\n${base64decode(aws_launch_template.this.user_data)}"
  }

  assert {
    condition     = jsondecode(aws_ssm_parameter.cloudwatch_agent.value) == jsondecode(file("tests/expected/cloudwatch-agent.json"))
    error_message = "What is shipped isn't that of tests/expected, but:\n${aws_ssm_parameter.cloudwatch_agent.value}"
  }

  assert {
    condition = (
      aws_launch_template.this.metadata_options[0].http_tokens == "required"
      && aws_launch_template.this.metadata_options[0].http_put_response_hop_limit == 1
    )
    error_message = "The metadata service isn't closed as it should be."
  }

  assert {
    condition = (
      aws_launch_template.this.key_name == null
      && aws_launch_template.this.network_interfaces[0].associate_public_ip_address == "false"
      && aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true"
    )
    error_message = "The bastion has a key pair, a public address or an unencrypted volume."
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.endpoints) + length(aws_vpc_security_group_ingress_rule.endpoint_clients) + length(aws_vpc_endpoint.interface) == 0
    error_message = "Endpoints are made that nobody asked for."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.databases : rule.security_group_id != aws_security_group.bastion.id])
    error_message = "Somebody may dial the bastion."
  }

  assert {
    condition     = keys(aws_vpc_security_group_ingress_rule.databases) == ["orders"] && aws_vpc_security_group_egress_rule.databases["billing"].to_port == 5433
    error_message = "The rules of the databases aren't those asked for."
  }

  assert {
    condition     = output.connect_commands.orders == "postern connect orders --region eu-west-1 --document postern-connect --user app_ro --database orders"
    error_message = "It is said how to connect: ${output.connect_commands.orders}"
  }

  assert {
    condition     = output.grants_sql.billing == "CREATE USER \"app_ro\";\nGRANT rds_iam TO \"app_ro\";"
    error_message = "It is said what to grant: ${output.grants_sql.billing}"
  }

  assert {
    condition     = length([for tag in aws_autoscaling_group.this.tag : tag if tag.key == "postern" && tag.value == "bastion" && tag.propagate_at_launch]) == 1
    error_message = "postern connect wouldn't find the bastion."
  }
}

run "what_is_discovered_may_be_described" {
  command = plan

  variables {
    targets = [
      {
        name         = "one"
        discover     = { cluster = "orders" }
        resource_ids = ["cluster-ABCDEFGHIJKL"]
        databases    = ["orders"]
        users        = ["app_ro"]
      },
      {
        name         = "some-*"
        discover     = { tags = { postern = "yes", "with \"quotes\"" = "" }, endpoint = "reader" }
        resource_ids = ["db-ABCDEFGHIJKL"]
        databases    = ["orders"]
        users        = ["app_ro"]
      },
    ]
  }

  assert {
    condition     = contains(jsondecode(aws_iam_role_policy.bastion.policy).Statement[*].Sid, "DescribeDatabases")
    error_message = "The role couldn't discover."
  }

  assert {
    condition     = aws_ssm_parameter.config.value == file("tests/expected/discovered.toml")
    error_message = "postern.toml isn't discovered.toml of tests/expected, but:\n${aws_ssm_parameter.config.value}"
  }
}

run "all_statements" {
  command = plan

  variables {
    allow_rds_describe = true
    kms_key_arn        = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    identity = {
      sources    = ["ssm", "sts"]
      ssm_source = "both"
      sts        = { gateway = "bastion.example", accounts = ["123456789012"] }
    }
  }

  assert {
    condition     = length(jsondecode(aws_iam_role_policy.bastion.policy).Statement) == length(jsondecode(file("tests/expected/bastion.json")).Statement) + 3
    error_message = "A statement is missing: ${join(", ", jsondecode(aws_iam_role_policy.bastion.policy).Statement[*].Sid)}"
  }

  assert {
    condition     = strcontains(aws_ssm_parameter.config.value, "[identity.sts]\naccounts = [\"123456789012\"]\ngateway = \"bastion.example\"\n")
    error_message = "The gateway has no name:\n${aws_ssm_parameter.config.value}"
  }
}

run "endpoints" {
  variables {
    vpc_endpoints             = ["ssm", "ssmmessages", "sts", "rds", "logs", "autoscaling", "s3"]
    route_table_ids           = ["rtb-0123456789abcdef0"]
    vpc_endpoint_client_cidrs = ["10.0.0.0/16"]
    https_egress              = {}
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 6 && length(aws_vpc_endpoint.s3) == 1 && length(aws_vpc_security_group_egress_rule.https_cidrs) == 0
    error_message = "Other endpoints are made than asked for."
  }

  assert {
    condition = alltrue([
      for name, endpoint in aws_vpc_endpoint.interface :
      name == "sts" ? true : jsondecode(endpoint.policy).Statement[0].Condition.StringEquals["aws:PrincipalAccount"] == ["123456789012"]
    ])
    error_message = "Somebody else's credentials may be used through an endpoint."
  }
}

run "an_image_of_another_architecture" {
  command = plan

  override_data {
    target = data.aws_ami.image
    values = { architecture = "x86_64", root_device_name = "/dev/xvda" }
  }

  expect_failures = [aws_launch_template.this]
}

run "a_configuration_that_no_parameter_holds" {
  command = plan

  variables {
    rules = [for number in range(200) : { principals = ["arn:aws:iam::123456789012:user/somebody-${number}"], targets = ["orders"], users = ["app_ro"] }]
  }

  expect_failures = [aws_ssm_parameter.config]
}

run "policies_that_iam_does_not_take" {
  command = plan

  variables {
    targets = [for number in range(100) : {
      name         = "orders-${number}"
      endpoint     = "orders.abc.eu-west-1.rds.amazonaws.com"
      resource_ids = ["db-ABCDEFGHIJKL${number}"]
      databases    = ["orders"]
      users        = ["app_ro", "app_rw"]
    }]
  }

  expect_failures = [aws_iam_role_policy.bastion, aws_iam_policy.person, aws_ssm_parameter.config]
}

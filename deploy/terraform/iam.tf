# What the bastion may do, and what people may. The texts are in policies/: tests read the same.

locals {
  # As the gateway has it: an endpoint of RDS says where it is.
  regions = {
    for target in var.targets : target.name => coalesce(
      try(regex("\\.([a-z0-9-]+)\\.rds\\.amazonaws\\.com", target.endpoint)[0], null), target.region, local.region
    )
  }

  has_discovery = length([for target in var.targets : target if target.discover != null]) > 0

  # Statements that not every bastion has.
  statements = {
    DescribeDatabases    = var.allow_rds_describe || local.has_discovery
    DescribeSessions     = contains(var.identity.sources, "ssm") && var.identity.ssm_source != "agent-state"
    DecryptOwnParameters = var.kms_key_arn != null
  }

  bastion_policy = jsondecode(templatefile("${path.module}/policies/bastion.json.tftpl", {
    partition  = local.partition
    dns_suffix = local.dns_suffix
    region     = local.region
    account    = local.account
    name       = var.name
    kms_key    = coalesce(var.kms_key_arn, "none")
    database_users = jsonencode(sort(distinct(flatten([
      for target in var.targets : [
        for id in target.resource_ids : [
          for user in target.users :
          "arn:${local.partition}:rds-db:${local.regions[target.name]}:${local.account}:dbuser:${id}/${user}"
        ]
      ]
    ]))))
    parameters = jsonencode([
      for name in ["postern.toml", "cloudwatch-agent.json"] : "arn:${local.partition}:ssm:${local.region}:${local.account}:parameter/${var.name}/${name}"
    ])
    log_groups = jsonencode(flatten([
      for name in keys(local.log_groups) : [
        "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/${var.name}/${name}",
        "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/${var.name}/${name}:log-stream:*",
      ]
    ]))
  }))

  person_policy = templatefile("${path.module}/policies/person.json.tftpl", {
    partition = local.partition
    region    = local.region
    account   = local.account
    document  = "arn:${local.partition}:ssm:${local.region}:${local.account}:document/${aws_ssm_document.session.name}"
    tag_key   = var.connect_tag.key
    tag_value = var.connect_tag.value
    databases = jsonencode(sort(distinct(flatten([
      for target in var.targets : [
        for id in target.resource_ids : "arn:${local.partition}:rds-db:${local.regions[target.name]}:${local.account}:dbuser:${id}/*"
      ]
    ]))))
  })
}

resource "aws_iam_role" "bastion" {
  name                 = "${var.name}-bastion"
  description          = "The bastion ${var.name}: logs in to its databases, carries sessions, ships logs"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "bastion" {
  name = "bastion"
  role = aws_iam_role.bastion.name

  policy = jsonencode({
    Version   = local.bastion_policy.Version
    Statement = [for statement in local.bastion_policy.Statement : statement if lookup(local.statements, statement.Sid, true)]
  })

  lifecycle {
    precondition {
      condition     = length(jsonencode(local.bastion_policy)) <= 10240
      error_message = "The role's policy is longer than the 10,240 characters that IAM takes: divide the targets among several gateways."
    }
  }
}

resource "aws_iam_instance_profile" "bastion" {
  name = "${var.name}-bastion"
  role = aws_iam_role.bastion.name
  tags = var.tags
}

resource "aws_iam_policy" "person" {
  name        = "${var.name}-connect"
  description = "Connects to databases through the bastion ${var.name}, and does nothing else there"
  policy      = jsonencode(jsondecode(local.person_policy))
  tags        = var.tags

  lifecycle {
    precondition {
      condition     = length(jsonencode(jsondecode(local.person_policy))) <= 6144
      error_message = "The people's policy is longer than the 6,144 characters that IAM takes: divide the targets among several gateways."
    }
  }
}

# The only way in: to one port of the bastion's loopback.
resource "aws_ssm_document" "session" {
  name            = "${var.name}-connect"
  document_type   = "Session"
  document_format = "JSON"
  tags            = var.tags

  content = templatefile("${path.module}/policies/session.json.tftpl", {
    port = var.gateway_port
  })
}

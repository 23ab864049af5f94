# Nobody dials the bastion: its agent dials Session Manager. The bastion dials databases, and AWS.

resource "aws_security_group" "bastion" {
  name        = "${var.name}-bastion"
  description = "Bastion ${var.name}: nobody in, databases and AWS out"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-bastion" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "databases" {
  for_each = var.database_security_groups

  security_group_id            = aws_security_group.bastion.id
  description                  = "PostgreSQL of ${each.key}"
  referenced_security_group_id = each.value.security_group_id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "databases" {
  for_each = { for name, group in var.database_security_groups : name => group if group.add_ingress }

  security_group_id            = each.value.security_group_id
  description                  = "Bastion ${var.name}"
  referenced_security_group_id = aws_security_group.bastion.id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = var.tags
}

resource "aws_vpc_security_group_egress_rule" "https_cidrs" {
  for_each = var.https_egress.cidrs

  security_group_id = aws_security_group.bastion.id
  description       = "AWS"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = var.tags
}

resource "aws_vpc_security_group_egress_rule" "https_groups" {
  for_each = var.https_egress.security_group_ids

  security_group_id            = aws_security_group.bastion.id
  description                  = "AWS, endpoint ${each.key}"
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = var.tags
}

resource "aws_vpc_security_group_egress_rule" "https_lists" {
  for_each = var.https_egress.prefix_list_ids

  security_group_id = aws_security_group.bastion.id
  description       = "AWS, ${each.key}"
  prefix_list_id    = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = var.tags
}

# Endpoints, if they are to be made here.

locals {
  interface_endpoints = setsubtract(var.vpc_endpoints, ["s3"])
  has_interfaces      = length(local.interface_endpoints) > 0
  own_credentials     = { StringEquals = { "aws:PrincipalAccount" = concat([local.account], var.vpc_endpoint_accounts) } }
}

resource "aws_security_group" "endpoints" {
  count = local.has_interfaces ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Endpoints of AWS services for the bastion ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-endpoints" })
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = local.has_interfaces ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "Bastion ${var.name}"
  referenced_security_group_id = aws_security_group.bastion.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = var.tags
}

resource "aws_vpc_security_group_ingress_rule" "endpoint_clients" {
  for_each = local.has_interfaces ? toset(var.vpc_endpoint_client_cidrs) : []

  security_group_id = aws_security_group.endpoints[0].id
  description       = "Others in the VPC"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = var.tags
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  count = local.has_interfaces ? 1 : 0

  security_group_id            = aws_security_group.bastion.id
  description                  = "AWS, endpoints"
  referenced_security_group_id = aws_security_group.endpoints[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = var.tags
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_endpoints

  vpc_id              = var.vpc_id
  service_name        = "com.amazonaws.${local.region}.${each.value}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = var.subnet_ids
  security_group_ids  = [aws_security_group.endpoints[0].id]
  tags                = merge(var.tags, { Name = "${var.name}-${each.value}" })

  # Somebody who is on the bastion could carry off data with credentials of his own. Not of STS: what has no signature yet, such as
  # AssumeRoleWithWebIdentity, has no account either.
  policy = each.value == "sts" ? null : jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = "*"
      Action    = "*"
      Resource  = "*"
      Condition = local.own_credentials
    }]
  })
}

resource "aws_vpc_endpoint" "s3" {
  count = contains(var.vpc_endpoints, "s3") ? 1 : 0

  vpc_id            = var.vpc_id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.route_table_ids
  tags              = merge(var.tags, { Name = "${var.name}-s3" })

  # Packages of Amazon Linux are fetched without a signature.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = "*"
        Action    = "*"
        Resource  = "*"
        Condition = local.own_credentials
      },
      {
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:GetObject"
        Resource  = "arn:${local.partition}:s3:::al2023-repos-${local.region}-de612dc2/*"
      },
    ]
  })
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  count = contains(var.vpc_endpoints, "s3") ? 1 : 0

  security_group_id = aws_security_group.bastion.id
  description       = "Packages of Amazon Linux"
  prefix_list_id    = aws_vpc_endpoint.s3[0].prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = var.tags
}

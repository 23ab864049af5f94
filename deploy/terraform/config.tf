# The configuration, which the bastion reads when it starts, and what is shipped from there.

locals {
  audit_file   = "/var/log/postern/live/audit.jsonl"
  journal_file = "/var/log/postern.log"

  discover_toml = {
    for target in var.targets : target.name => target.discover == null ? null : join("", [
      "{ ",
      join(", ", concat(
        [for key in ["cluster", "instance"] : "${key} = ${jsonencode(target.discover[key])}" if target.discover[key] != null],
        target.discover.tags == null ? [] : ["tags = { ${join(", ", [
          for key, value in target.discover.tags : "${jsonencode(key)} = ${jsonencode(value)}"
        ])} }"],
        target.discover.endpoint == null ? [] : ["endpoint = ${jsonencode(target.discover.endpoint)}"],
      )),
      " }",
    ])
  }

  # JSON's strings, numbers and lists are TOML's as well. What isn't given isn't written: the gateway has its own defaults.
  targets_toml = [
    for target in var.targets : {
      keys = merge(
        {
          for key, value in {
            name        = target.name
            endpoint    = target.endpoint
            region      = target.region
            tls_ca_file = target.tls_ca_file
            databases   = target.databases
            users       = target.users
          } : key => jsonencode(value) if value != null
        },
        target.discover == null ? {} : { discover = local.discover_toml[target.name] },
      )
      tables = {
        pool     = { for key, value in target.pool : key => jsonencode(value) if value != null }
        iam      = { for key, value in target.iam : key => jsonencode(value) if value != null }
        timeouts = { for key, value in target.timeouts : key => jsonencode(value) if value != null }
      }
    }
  ]

  rules_toml = [for rule in var.rules : { for key, value in rule : key => jsonencode(value) if value != null }]

  config = templatefile("${path.module}/templates/postern.toml.tftpl", {
    name          = var.name
    port          = var.gateway_port
    document      = aws_ssm_document.session.name
    region        = local.region
    identity      = var.identity
    sts           = var.identity.sts == null ? null : { for key, value in var.identity.sts : key => jsonencode(value) if value != null }
    audit_file    = local.audit_file
    audit_on_full = var.audit_on_full
    log_level     = var.log_level
    targets       = local.targets_toml
    rules         = local.rules_toml
  })

  log_groups = {
    audit   = { file = local.audit_file, days = var.audit_retention_days }
    journal = { file = local.journal_file, days = var.journal_retention_days }
  }

  # No metrics: that would take cloudwatch:PutMetricData, and the gateway's own are Prometheus' to scrape.
  cloudwatch_agent = jsonencode({
    agent = { region = local.region }
    logs = {
      force_flush_interval = 5
      logs_collected = {
        files = {
          collect_list = [
            for name, group in local.log_groups : {
              file_path       = group.file
              log_group_name  = "/${var.name}/${name}"
              log_stream_name = "{instance_id}"
            }
          ]
        }
      }
    }
  })
}

resource "aws_ssm_parameter" "config" {
  name        = "/${var.name}/postern.toml"
  description = "Configuration of the PostgreSQL gateway ${var.name}"
  type        = "SecureString"
  tier        = "Intelligent-Tiering"
  key_id      = var.kms_key_arn
  value       = local.config
  tags        = var.tags

  lifecycle {
    precondition {
      condition     = length(base64encode(local.config)) / 4 * 3 <= 8192
      error_message = "The configuration is longer than the 8 KiB that a parameter holds: write rules with globs, or share them between targets."
    }
  }
}

resource "aws_ssm_parameter" "cloudwatch_agent" {
  name        = "/${var.name}/cloudwatch-agent.json"
  description = "What the CloudWatch agent ships from the bastion ${var.name}"
  type        = "SecureString"
  key_id      = var.kms_key_arn
  value       = local.cloudwatch_agent
  tags        = var.tags
}

resource "aws_cloudwatch_log_group" "this" {
  #checkov:skip=CKV_AWS_338: only the audit log is a record, and is kept for 400 days; the gateway's own log holds nothing that it doesn't
  for_each = local.log_groups

  name              = "/${var.name}/${each.key}"
  retention_in_days = each.value.days
  kms_key_id        = var.kms_key_arn
  # The record outlives what it is of.
  skip_destroy = each.key == "audit"
  tags         = var.tags
}

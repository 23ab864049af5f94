# A bastion with Postern on it: README.md says what is made, and how it is used.

data "aws_partition" "current" {}

data "aws_region" "current" {}

data "aws_caller_identity" "current" {}

locals {
  partition  = data.aws_partition.current.partition
  dns_suffix = data.aws_partition.current.dns_suffix
  region     = data.aws_region.current.region
  account    = data.aws_caller_identity.current.account_id
}

# Asked for only so that what doesn't fit together is told before anything is made.
data "aws_ami" "image" {
  owners = var.ami_owners

  filter {
    name   = "image-id"
    values = [var.ami_id]
  }
}

data "aws_ec2_instance_type" "this" {
  instance_type = var.instance_type
}

resource "aws_launch_template" "this" {
  name                                 = var.name
  description                          = "Bastion ${var.name}"
  image_id                             = var.ami_id
  instance_type                        = var.instance_type
  instance_initiated_shutdown_behavior = "terminate"
  update_default_version               = true
  ebs_optimized                        = true
  tags                                 = var.tags

  # No key pair: there is no SSH.

  # Versions of the parameters, so that a change of them is a change of this, and going back is going back.
  user_data = base64encode(join("\n", ["#cloud-config", jsonencode({
    write_files = [{
      path        = "/etc/postern/first-boot.env"
      owner       = "root:root"
      permissions = "0644"
      content = join("", [for name, value in {
        POSTERN_CONFIG_PARAMETER   = "${aws_ssm_parameter.config.name}:${aws_ssm_parameter.config.version}"
        CLOUDWATCH_AGENT_PARAMETER = "${aws_ssm_parameter.cloudwatch_agent.name}:${aws_ssm_parameter.cloudwatch_agent.version}"
        REGION                     = local.region
        AUTO_SCALING_GROUP         = var.name
        LAUNCH_HOOK                = "ready"
      } : "${name}=${value}\n"])
    }]
  }), ""]))

  iam_instance_profile {
    arn = aws_iam_instance_profile.bastion.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    http_protocol_ipv6          = "disabled"
    instance_metadata_tags      = "disabled"
  }

  network_interfaces {
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [aws_security_group.bastion.id]
  }

  block_device_mappings {
    device_name = data.aws_ami.image.root_device_name

    ebs {
      volume_type           = "gp3"
      volume_size           = var.root_volume_gib
      encrypted             = true
      kms_key_id            = var.ebs_kms_key_arn
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["volume", "network-interface"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = var.name })
    }
  }

  lifecycle {
    precondition {
      condition     = contains(data.aws_ec2_instance_type.this.supported_architectures, data.aws_ami.image.architecture)
      error_message = "The image ${var.ami_id} is for ${data.aws_ami.image.architecture}, and ${var.instance_type} is not."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                      = var.name
  min_size                  = var.capacity
  desired_capacity          = var.capacity
  max_size                  = var.capacity * 2
  vpc_zone_identifier       = var.subnet_ids
  health_check_type         = "EC2"
  health_check_grace_period = var.launch_seconds
  termination_policies      = ["OldestLaunchTemplate", "OldestInstance"]
  wait_for_capacity_timeout = "10m"
  enabled_metrics           = ["GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances"]

  launch_template {
    id      = aws_launch_template.this.id
    version = aws_launch_template.this.latest_version
  }

  instance_refresh {
    strategy = "Rolling"

    preferences {
      # The new one first.
      min_healthy_percentage = 100
      max_healthy_percentage = 200
      instance_warmup        = "0"
      skip_matching          = true
      auto_rollback          = true
    }
  }

  dynamic "tag" {
    for_each = merge(var.tags, {
      Name                  = var.name
      (var.connect_tag.key) = var.connect_tag.value
    })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  timeouts {
    delete = "${ceil(var.drain_seconds / 60) + 15}m"
  }

  # A bastion that starts before it may do all of its work isn't ready.
  depends_on = [
    aws_iam_role_policy.bastion,
    aws_vpc_endpoint.interface,
    aws_vpc_endpoint.s3,
    aws_vpc_security_group_egress_rule.databases,
    aws_vpc_security_group_egress_rule.endpoints,
    aws_vpc_security_group_egress_rule.s3,
    aws_vpc_security_group_egress_rule.https_cidrs,
    aws_vpc_security_group_egress_rule.https_groups,
    aws_vpc_security_group_egress_rule.https_lists,
    aws_vpc_security_group_ingress_rule.databases,
    aws_vpc_security_group_ingress_rule.endpoints,
    aws_cloudwatch_log_group.this,
  ]
}

# In service once the image says that the gateway is ready; until then, at a refresh, the old bastion isn't touched. It is made after the
# first bastion is in service, which may come before the database knows any users.
resource "aws_autoscaling_lifecycle_hook" "ready" {
  name                   = "ready"
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_LAUNCHING"
  heartbeat_timeout      = var.launch_seconds
  default_result         = "ABANDON"
}

# Nobody completes this one: a bastion that is replaced goes on for so long, beside the new one, and is then shut down, which the
# gateway takes as SIGTERM, with listen.drain_timeout for the transactions that are left.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  name                   = "drain"
  autoscaling_group_name = aws_autoscaling_group.this.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.drain_seconds
  default_result         = "CONTINUE"
}

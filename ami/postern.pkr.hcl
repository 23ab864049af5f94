# Images of a bastion, for arm64 and x86_64, of Amazon Linux 2023. ami/README.md says how they are made.

packer {
  required_version = ">= 1.11"

  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}

variable "region" {
  type        = string
  description = "Region that the images are made in."
}

variable "version" {
  type        = string
  description = "Version of the packages in target/package."
}

variable "vpc_id" {
  type        = string
  default     = null
  description = "VPC of the machines that the images are made on; the default VPC if null."
}

variable "subnet_id" {
  type        = string
  default     = null
  description = "A subnet of it, from which the packages of Amazon Linux can be reached."
}

variable "kms_key_id" {
  type        = string
  default     = null
  description = "Key for the images; AWS' own for EBS if null."
}

variable "share_with" {
  type        = list(string)
  default     = []
  description = "Accounts that may start the images. They need the key as well."
}

variable "with_shells" {
  type        = bool
  default     = false
  description = "Leaves shells and commands by Session Manager possible."
}

locals {
  made = formatdate("YYYYMMDD-hhmm", timestamp())

  # As RPM calls the architectures.
  rpm = { arm64 = "aarch64", x86_64 = "x86_64" }
}

data "amazon-ami" "arm64" {
  region      = var.region
  owners      = ["amazon"]
  most_recent = true

  filters = {
    name                = "al2023-ami-2023.*-kernel-*-arm64"
    architecture        = "arm64"
    virtualization-type = "hvm"
    root-device-type    = "ebs"
  }
}

data "amazon-ami" "x86_64" {
  region      = var.region
  owners      = ["amazon"]
  most_recent = true

  filters = {
    name                = "al2023-ami-2023.*-kernel-*-x86_64"
    architecture        = "x86_64"
    virtualization-type = "hvm"
    root-device-type    = "ebs"
  }
}

source "amazon-ebs" "bastion" {
  region    = var.region
  vpc_id    = var.vpc_id
  subnet_id = var.subnet_id
  # In the default VPC there is no other way out; Packer opens no port for it.
  associate_public_ip_address = var.subnet_id == null ? null : false
  ami_users                   = var.share_with
  encrypt_boot                = true
  kms_key_id                  = var.kms_key_id

  # Neither the machine that the image is made on nor those that are made of it take version 1 of the metadata service.
  imds_support = "v2.0"

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # Through Session Manager, so that no port is open here either; whoever runs this needs the plugin, and the profile what it takes to be managed.
  communicator  = "ssh"
  ssh_username  = "ec2-user"
  ssh_interface = "session_manager"

  temporary_iam_instance_profile_policy_document {
    Version = "2012-10-17"

    Statement {
      Effect = "Allow"
      Action = [
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
      ]
      Resource = ["*"]
    }
  }

  tags = {
    Name            = "postern ${var.version}"
    postern_version = var.version
    source_ami      = "{{ .SourceAMI }}"
  }
}

build {
  source "amazon-ebs.bastion" {
    name          = "arm64"
    ami_name      = "postern-${var.version}-arm64-${local.made}"
    source_ami    = data.amazon-ami.arm64.id
    instance_type = "t4g.small"
  }

  source "amazon-ebs.bastion" {
    name          = "x86_64"
    ami_name      = "postern-${var.version}-x86_64-${local.made}"
    source_ami    = data.amazon-ami.x86_64.id
    instance_type = "t3.small"
  }

  provisioner "shell" {
    inline = ["mkdir -p /tmp/postern"]
  }

  provisioner "file" {
    source      = "${path.root}/"
    destination = "/tmp/postern"
  }

  provisioner "file" {
    source      = "${path.root}/../target/package/postern-${var.version}.${local.rpm[source.name]}.rpm"
    destination = "/tmp/postern/postern.rpm"
  }

  # The session that this comes through goes on; the next boot has neither sshd nor shells.
  provisioner "shell" {
    inline = [
      "cloud-init status --wait >/dev/null || true",
      # All of it, so that the image is of that release, and what is installed after it as well.
      "sudo dnf upgrade --releasever=latest -y --quiet",
      "sudo /tmp/postern/provision ${var.with_shells ? "--with-shells" : ""} /tmp/postern/postern.rpm",
      "rm -rf /tmp/postern",
    ]
  }

  post-processor "manifest" {
    output = "${path.root}/../target/image/manifest.json"
  }
}

# Where it stands.

variable "name" {
  description = "What all that is made here is called. Some of it is the account's, so two gateways need two, also in two regions."
  type        = string
  default     = "postern"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}[a-z0-9]$", var.name))
    error_message = "Expected 3 to 32 lower-case letters, digits and hyphens, a letter first and no hyphen last, such as \"postern-orders\"."
  }
}

variable "tags" {
  description = "Tags for everything."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "vpc_id" {
  description = "The VPC of the databases."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "Expected the id of a VPC, such as \"vpc-0123456789abcdef0\"."
  }
}

variable "subnet_ids" {
  description = "Private subnets for the bastion, best in several availability zones."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "Expected at least one id of a subnet, such as \"subnet-0123456789abcdef0\"."
  }
}

# The instances.

variable "ami_id" {
  description = "The image: one made by ami/, or one that keeps to \"The image\" below. Another id replaces the bastion."
  type        = string

  validation {
    condition     = can(regex("^ami-[0-9a-f]+$", var.ami_id))
    error_message = "Expected the id of an image, such as \"ami-0123456789abcdef0\"."
  }
}

variable "ami_owners" {
  description = "Who may own the image: \"self\" or account ids. An id that belongs to anybody else is refused."
  type        = list(string)
  default     = ["self"]
  nullable    = false

  validation {
    condition     = length(var.ami_owners) > 0 && alltrue([for owner in var.ami_owners : can(regex("^(self|[0-9]{12})$", owner))])
    error_message = "Expected \"self\" or account ids of twelve digits."
  }
}

variable "instance_type" {
  description = "Of the image's architecture: t4g, m7g, … for arm64, t3, m7i, … for x86_64. It is compared before anything is made."
  type        = string
  default     = "t4g.small"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9-]+$", var.instance_type))
    error_message = "Expected an instance type, such as \"t4g.small\"."
  }
}

variable "capacity" {
  description = "Bastions at a time. People get to the one that was started last, the others stand by. Each has its own pools, so the databases see that many times the connections."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = contains([1, 2, 3, 4], var.capacity)
    error_message = "Expected 1 to 4."
  }
}

variable "root_volume_gib" {
  description = "Size of the root volume, which is encrypted."
  type        = number
  default     = 16
  nullable    = false

  validation {
    condition     = var.root_volume_gib >= 8 && var.root_volume_gib <= 1024 && floor(var.root_volume_gib) == var.root_volume_gib
    error_message = "Expected 8 to 1024 (GiB)."
  }
}

variable "ebs_kms_key_arn" {
  description = "Key for the root volume; AWS' own for EBS if null. Auto Scaling's service-linked role needs a grant for it."
  type        = string
  default     = null

  validation {
    condition     = var.ebs_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.ebs_kms_key_arn))
    error_message = "Expected the ARN of a key (not of an alias)."
  }
}

variable "launch_seconds" {
  description = "How long a new bastion, but for the very first, has until it reports that it is ready. One that doesn't is ended, and the old one stays."
  type        = number
  default     = 600
  nullable    = false

  validation {
    condition     = var.launch_seconds >= 30 && var.launch_seconds <= 7200
    error_message = "Expected 30 to 7200 (seconds)."
  }
}

variable "drain_seconds" {
  description = "How long a bastion that is replaced is left to those who are on it. Who comes new gets the new one."
  type        = number
  default     = 900
  nullable    = false

  validation {
    condition     = var.drain_seconds >= 30 && var.drain_seconds <= 7200
    error_message = "Expected 30 to 7200 (seconds)."
  }
}

variable "permissions_boundary_arn" {
  description = "Permissions boundary of the bastion's role."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/", var.permissions_boundary_arn))
    error_message = "Expected the ARN of a policy."
  }
}

# What it leads to. Names and meanings are those of postern.toml.

variable "targets" {
  description = "The databases, as `[[targets]]` in postern.toml, with either `endpoint` or `discover`. `resource_ids` (`db-…` of an instance, `cluster-…` of a cluster, `prx-…` of a proxy) are what the role may log in to, as `users`, and nothing else: what is found by tags and isn't among them stays closed."
  type = list(object({
    name         = string
    resource_ids = list(string)
    endpoint     = optional(string)
    discover = optional(object({
      cluster  = optional(string)
      instance = optional(string)
      tags     = optional(map(string))
      endpoint = optional(string)
    }))
    region      = optional(string)
    tls_ca_file = optional(string)
    databases   = list(string)
    users       = list(string)
    pool = optional(object({
      mode         = optional(string)
      size         = optional(number)
      min_idle     = optional(number)
      idle_timeout = optional(string)
      lifetime     = optional(string)
      wait_timeout = optional(string)
    }), {})
    iam = optional(object({
      logins_per_second = optional(number)
      burst             = optional(number)
      logins_in_flight  = optional(number)
    }), {})
    timeouts = optional(object({
      connect             = optional(string)
      tls                 = optional(string)
      login               = optional(string)
      reset               = optional(string)
      query               = optional(string)
      transaction         = optional(string)
      idle_in_transaction = optional(string)
      client_idle         = optional(string)
    }), {})
  }))

  validation {
    condition = (
      length(var.targets) > 0
      && length(distinct(var.targets[*].name)) == length(var.targets)
      && alltrue([
        for target in var.targets :
        can(regex(try(length(target.discover.tags), 0) > 0 ? "^[A-Za-z0-9._-]*[*]?[A-Za-z0-9._-]*$" : "^[A-Za-z0-9._-]+$", target.name))
      ])
    )
    error_message = "Expected at least one target, each with a name of its own of letters, digits, \"-\", \"_\" and \".\", and with discover.tags one \"*\"."
  }

  validation {
    condition = alltrue([
      for target in var.targets : length(target.resource_ids) > 0 && alltrue([
        for id in target.resource_ids : can(regex("^(db|cluster|prx)-[A-Za-z0-9]+$", id))
      ])
    ])
    error_message = "Expected in resource_ids of each target what RDS calls DbiResourceId or DbClusterResourceId, such as \"cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ\". Wildcards aren't taken: the role would get into databases that aren't meant."
  }

  validation {
    condition = alltrue([
      for target in var.targets : (target.endpoint == null) != (target.discover == null)
    ])
    error_message = "Expected either endpoint or discover of each target."
  }

  validation {
    condition = alltrue([
      for target in var.targets : target.discover == null ? true : length([
        for given in [target.discover.cluster, target.discover.instance, target.discover.tags] : given if given != null
      ]) == 1
    ])
    error_message = "Expected in discover one of cluster, instance and tags."
  }

  validation {
    condition     = alltrue([for target in var.targets : contains(["writer", "reader"], try(coalesce(target.discover.endpoint), "writer"))])
    error_message = "Expected as discover.endpoint \"writer\" or \"reader\"."
  }

  validation {
    condition = alltrue([
      for target in var.targets : target.endpoint == null ? true : can(regex("^[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)+(:[0-9]+)?$", target.endpoint))
    ])
    error_message = "Expected as endpoint a host name, or host:port, as RDS shows it."
  }

  validation {
    condition = alltrue(flatten([
      for target in var.targets : [length(target.users) > 0, [for user in target.users : can(regex("^[A-Za-z0-9_.@-]{1,63}$", user))]]
    ]))
    error_message = "Expected users of each target of letters, digits, \"_\", \".\", \"@\" and \"-\": \"*\", \"?\" and \"$\" would mean others to IAM."
  }

  validation {
    condition     = alltrue([for target in var.targets : length(target.databases) > 0 && alltrue([for database in target.databases : length(database) > 0])])
    error_message = "Expected databases of each target."
  }
}

variable "rules" {
  description = "Who may use what, as `[[rules]]` in postern.toml: the first that matches decides, and nobody is let in without one."
  type = list(object({
    principals              = list(string)
    accounts                = optional(list(string))
    permission_sets         = optional(list(string))
    documents               = optional(list(string))
    targets                 = optional(list(string))
    databases               = optional(list(string))
    users                   = optional(list(string))
    console                 = optional(string)
    hours                   = optional(list(string))
    timezone                = optional(string)
    max_clients             = optional(number)
    max_clients_per_session = optional(number)
    max_duration            = optional(string)
    read_only               = optional(bool)
    mode                    = optional(string)
    statements              = optional(string)
  }))

  validation {
    condition     = length(var.rules) > 0 && alltrue([for rule in var.rules : length(rule.principals) > 0])
    error_message = "Expected at least one rule, each with principals: without one nobody is let in."
  }

  validation {
    condition = alltrue([
      for rule in var.rules : rule.console == null
      ? try(length(rule.targets) > 0 && length(rule.users) > 0, false)
      : contains(["stats", "admin"], rule.console) && rule.targets == null && rule.users == null
    ])
    error_message = "Expected targets and users in each rule, or else console, \"stats\" or \"admin\"."
  }
}

variable "identity" {
  description = "How people prove who they are, as `[identity]` in postern.toml. `trust` isn't to be had here: whoever reaches the port would be let in."
  type = object({
    sources    = optional(list(string), ["ssm"])
    ssm_source = optional(string, "agent-state")
    sts = optional(object({
      gateway  = string
      accounts = list(string)
      regions  = optional(list(string))
    }))
    scram_verifiers = optional(map(string), {})
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([jsonencode(["ssm"]), jsonencode(["sts"]), jsonencode(["scram"]), jsonencode(["ssm", "sts"]), jsonencode(["ssm", "scram"])], jsonencode(var.identity.sources))
    error_message = "Expected as sources [\"ssm\"], [\"sts\"], [\"scram\"], [\"ssm\", \"sts\"] or [\"ssm\", \"scram\"]."
  }

  validation {
    condition     = contains(["agent-state", "describe-sessions", "both"], var.identity.ssm_source)
    error_message = "Expected as ssm_source \"agent-state\", \"describe-sessions\" or \"both\"."
  }

  validation {
    condition     = contains(var.identity.sources, "sts") == (var.identity.sts != null)
    error_message = "Expected sts, with gateway and accounts, if \"sts\" is one of the sources, and not otherwise."
  }
}

variable "gateway_port" {
  description = "The gateway's port on the bastion's loopback, which the session document pins."
  type        = number
  default     = 5432
  nullable    = false

  validation {
    condition     = var.gateway_port >= 1024 && var.gateway_port <= 65535 && floor(var.gateway_port) == var.gateway_port
    error_message = "Expected 1024 to 65535."
  }
}

variable "log_level" {
  description = "`log.level` in postern.toml."
  type        = string
  default     = "info"
  nullable    = false
}

variable "audit_on_full" {
  description = "`audit.on_full` in postern.toml."
  type        = string
  default     = "refuse-logins"
  nullable    = false

  validation {
    condition     = contains(["refuse-logins", "drop"], var.audit_on_full)
    error_message = "Expected \"refuse-logins\" or \"drop\"."
  }
}

variable "allow_rds_describe" {
  description = "Whether the role may ask RDS about databases, for `postern check`. With a target that has `discover` it may anyway."
  type        = bool
  default     = false
  nullable    = false
}

# Network.

variable "database_security_groups" {
  description = "Security groups of the databases, by any name: the bastion may dial them on `port`, and with `add_ingress` each gets the rule that admits the bastion."
  type = map(object({
    security_group_id = string
    port              = optional(number, 5432)
    add_ingress       = optional(bool, true)
  }))

  validation {
    condition = length(var.database_security_groups) > 0 && alltrue([
      for group in var.database_security_groups : group.port >= 1 && group.port <= 65535 && can(regex("^sg-[0-9a-f]+$", group.security_group_id))
    ])
    error_message = "Expected at least one, with the id of a security group, such as \"sg-0123456789abcdef0\", and a port."
  }
}

variable "vpc_endpoints" {
  description = "Endpoints to make: of `ssm`, `ssmmessages`, `sts`, `rds`, `logs`, `autoscaling` and `s3`. With private DNS all of the VPC uses them: see `vpc_endpoint_client_cidrs`. None if the VPC has a NAT gateway or has them already."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = length(setsubtract(var.vpc_endpoints, ["ssm", "ssmmessages", "sts", "rds", "logs", "autoscaling", "s3"])) == 0
    error_message = "Expected some of \"ssm\", \"ssmmessages\", \"sts\", \"rds\", \"logs\", \"autoscaling\" and \"s3\"."
  }
}

variable "vpc_endpoint_client_cidrs" {
  description = "Who else in the VPC may use the endpoints that are made here. Whoever used these services before, by a NAT gateway, must be among them."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for cidr in var.vpc_endpoint_client_cidrs : can(cidrnetmask(cidr)) && cidr != "0.0.0.0/0"])
    error_message = "Expected ranges of IPv4 addresses, such as \"10.0.0.0/16\", and not all of them."
  }
}

variable "vpc_endpoint_accounts" {
  description = "Accounts whose credentials may be used through the endpoints that are made here, beside this one."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for account in var.vpc_endpoint_accounts : can(regex("^[0-9]{12}$", account))])
    error_message = "Expected account ids of twelve digits."
  }
}

variable "route_table_ids" {
  description = "Route tables of the bastion's subnets, for the endpoint of `s3`."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = !contains(var.vpc_endpoints, "s3") || length(var.route_table_ids) > 0
    error_message = "Expected route tables if vpc_endpoints has \"s3\"."
  }
}

variable "https_egress" {
  description = "Where the bastion may go on port 443 beside the endpoints that are made here: endpoints that there are (`security_group_ids`, `prefix_list_ids`), or, through a NAT gateway, `cidrs = [\"0.0.0.0/0\"]`."
  type = object({
    cidrs              = optional(set(string), [])
    security_group_ids = optional(map(string), {})
    prefix_list_ids    = optional(map(string), {})
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for cidr in var.https_egress.cidrs : can(cidrnetmask(cidr))])
    error_message = "Expected ranges of IPv4 addresses, such as \"10.0.0.0/16\"."
  }

  validation {
    condition = (
      length(setsubtract(["ssm", "ssmmessages", "sts", "logs", "autoscaling"], var.vpc_endpoints)) == 0
      || length(var.https_egress.cidrs) + length(var.https_egress.security_group_ids) > 0
    )
    error_message = "Expected a way to AWS: all of \"ssm\", \"ssmmessages\", \"sts\", \"logs\" and \"autoscaling\" in vpc_endpoints, or cidrs or security_group_ids. Without one nobody gets to the bastion."
  }
}

# People.

variable "connect_tag" {
  description = "The tag of the bastion, by which `postern connect` finds it and the people's policy knows it. Two gateways in one region need two."
  type = object({
    key   = string
    value = string
  })
  default  = { key = "postern", value = "bastion" }
  nullable = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]{1,64}$", var.connect_tag.key)) && can(regex("^[A-Za-z0-9_.-]{1,64}$", var.connect_tag.value))
    error_message = "Expected key and value of letters, digits, \"_\", \".\" and \"-\"."
  }
}

# Configuration and logs.

variable "kms_key_arn" {
  description = "Key for the parameters and the log groups; AWS' own if null. Its key policy must allow CloudWatch Logs to use it."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "Expected the ARN of a key (not of an alias)."
  }
}

variable "audit_retention_days" {
  description = "How long CloudWatch keeps the audit log. It stays when all else is destroyed."
  type        = number
  default     = 400
  nullable    = false

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.audit_retention_days)
    error_message = "Expected a number of days that CloudWatch Logs has, from 30 on: 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "journal_retention_days" {
  description = "How long CloudWatch keeps the gateway's own log."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400], var.journal_retention_days)
    error_message = "Expected a number of days that CloudWatch Logs has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 or 400."
  }
}

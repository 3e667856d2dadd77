variable "project" {
  description = "Project that everything is deployed to."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project: ${var.project} is no project id (6 to 30 lower-case letters, digits and hyphens, a letter first)."
  }
}

variable "region" {
  description = "Region of functions, scheduler jobs and archives."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: ${var.region} is no region such as us-central1."
  }
}

variable "prefix" {
  description = "Put before every name, the pipeline's topics and the collections included: two environments in one project. Empty, or such as \"dev-\"."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z][a-z0-9-]{0,6}-)?$", var.prefix))
    error_message = "prefix: ${var.prefix} is neither empty nor at most 8 lower-case letters, digits and hyphens that begin with a letter and end with a hyphen."
  }
}

variable "pipeline_file" {
  description = "Definition of the pipeline, the one that the archives were packed with. Default: shared/pipeline/nba.yaml."
  type        = string
  default     = null
}

variable "archives" {
  description = "Folder of the functions' archives. Default: build/functions, where make package puts them."
  type        = string
  default     = null
}

variable "source_hash" {
  description = "Hash of the source to deploy, as make package prints it. It picks the archives, so that an old one is never taken for the checkout."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{12}$", var.source_hash))
    error_message = "source_hash: ${var.source_hash} is no hash of 12 hex digits; print it with: go run ./scripts/packaging --hash"
  }
}

variable "shadow" {
  description = "true records and decides in collections of its own and publishes nothing; false hands over."
  type        = bool
  default     = false
  nullable    = false
}

variable "writes_tables" {
  description = "Whether sweeps may remove duplicate rows from the pipeline's tables. Default: only without a prefix. A second environment looks at the same tables and has locks of its own, so one of them writes."
  type        = bool
  default     = null
}

variable "claim" {
  description = "How long a process may work on a hand-over unless it renews: 1s to 10m."
  type        = string
  default     = "60s"

  validation {
    condition     = can(regex("^([1-9][0-9]{0,2}s|[1-9]m|10m)$", var.claim)) && try(tonumber(trimsuffix(var.claim, "s")) <= 600, true)
    error_message = "claim: ${var.claim} is no duration from 1s to 10m such as 60s or 2m."
  }
}

variable "log_level" {
  description = "Least severity that the functions log: debug, info, warn, error. Alerts read the info lines."
  type        = string
  default     = "info"

  validation {
    condition     = contains(["debug", "info"], var.log_level)
    error_message = "log_level: ${var.log_level} is not one of debug, info; alerts on latency and heartbeats read lines of level info."
  }
}

variable "database" {
  description = "Firestore database that holds the state."
  type        = string
  default     = "(default)"

  validation {
    condition     = var.database == "(default)" || can(regex("^[a-z][a-z0-9-]{2,61}[a-z0-9]$", var.database))
    error_message = "database: ${var.database} is neither (default) nor 4 to 63 lower-case letters, digits and hyphens."
  }
}

variable "database_location" {
  description = "Where to create the database, such as nam5 or us-central1. Empty: it exists and is left alone."
  type        = string
  default     = ""
}

variable "database_delete_protection" {
  description = "Whether Firestore refuses to delete the database that is created here. Terraform leaves it alone in any case."
  type        = bool
  default     = true
}

variable "backup_weeks" {
  description = "For how many weeks a weekly backup of the database is kept, 1 to 14; 0: no backups are scheduled here. Of two environments in one database one has it."
  type        = number
  default     = 0

  validation {
    condition     = var.backup_weeks >= 0 && var.backup_weeks <= 14 && floor(var.backup_weeks) == var.backup_weeks
    error_message = "backup_weeks: ${var.backup_weeks} is no whole number from 0 to 14."
  }
}

variable "existing_topics" {
  description = "Topics of the pipeline that exist already, without prefix. They are looked up instead of made, and never changed or destroyed."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.existing_topics, local.pipeline_topics)) == 0
    error_message = "existing_topics: ${join(", ", setsubtract(var.existing_topics, local.pipeline_topics))}: the pipeline has ${join(", ", local.pipeline_topics)}."
  }
}

variable "processors" {
  description = "Addresses of the service accounts under which processors run that take our locks. They get the locks, the staging dataset, jobs in BigQuery, and the topics to which they report."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.processors : can(regex("^[^@ ]+@[^@ ]+\\.iam\\.gserviceaccount\\.com$", a))])
    error_message = "processors: ${join(", ", var.processors)}: each has to be the address of a service account, such as phase3@my-project.iam.gserviceaccount.com."
  }
}

variable "critical_channels" {
  description = "Notification channels that page a person, such as PagerDuty's: every alert of severity CRITICAL goes there. Without any, to the mail address."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.critical_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", c))])
    error_message = "critical_channels: ${join(", ", var.critical_channels)}: each has to be the name of a channel, such as projects/my-project/notificationChannels/123; list them with: gcloud beta monitoring channels list"
  }
}

variable "other_channels" {
  description = "Notification channels that wake no one, such as a chat room or a ticket queue: every other alert goes there, and to slack_channel. Without any, to the mail address."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.other_channels : can(regex("^projects/[^/]+/notificationChannels/[0-9]+$", c))])
    error_message = "other_channels: ${join(", ", var.other_channels)}: each has to be the name of a channel, such as projects/my-project/notificationChannels/123; list them with: gcloud beta monitoring channels list"
  }
}

variable "email" {
  description = "Address for alerts that have no other channel, and for those about Slack itself. Required: an alert without a channel is none."
  type        = string

  validation {
    condition     = can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.email))
    error_message = "email: ${var.email} is no mail address."
  }
}

variable "slack_channel" {
  description = "Slack channel, such as #pipeline-alerts, for alerts that are not critical, and for the notifications of the functions themselves. Empty: none."
  type        = string
  default     = ""

  validation {
    condition     = var.slack_channel == "" || can(regex("^#[a-z0-9_-]{1,80}$", var.slack_channel))
    error_message = "slack_channel: ${var.slack_channel} is no channel such as #pipeline-alerts."
  }

  validation {
    condition     = var.slack_channel == "" || var.slack_token != null
    error_message = "slack_channel: ${var.slack_channel} needs slack_token, at every plan and apply, as it is kept nowhere: give it as TF_VAR_slack_token."
  }
}

variable "slack_token" {
  description = "Token of the Slack bot (xoxb-…), of a bot that was invited to the channel. Kept in no state, so needed at every plan and apply; sent when slack_token_version changes. Give it as TF_VAR_slack_token."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true
}

variable "slack_token_version" {
  description = "Raise it when slack_token is another one."
  type        = number
  default     = 1
}

variable "viewers" {
  description = "People and groups that may open the status page, such as group:data@example.com. Without any, the function accepts no request from outside the project."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for v in var.viewers : can(regex("^(user|group|domain|serviceAccount):[^ ]+$", v))])
    error_message = "viewers: ${join(", ", var.viewers)}: each has to be user:, group:, domain: or serviceAccount: with its address; not everybody."
  }
}

variable "page" {
  description = "Address at which people open the status page, such as https://status.example.com. Slack messages link to it. Empty: no links."
  type        = string
  default     = ""

  validation {
    condition     = var.page == "" || can(regex("^https?://[^/?#]+[^?#]*$", var.page))
    error_message = "page: ${var.page} does not begin with https:// or http://."
  }
}

variable "runbooks" {
  description = "Address under which the pages of docs/how-to/runbooks can be read."
  type        = string
  default     = "https://github.com/phasegate/phasegate/blob/main/docs/how-to/runbooks"

  validation {
    condition     = startswith(var.runbooks, "https://")
    error_message = "runbooks: ${var.runbooks} does not begin with https://."
  }
}

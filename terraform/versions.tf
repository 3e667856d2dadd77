terraform {
  required_version = ">= 1.11.0, < 2.0.0" # write-only arguments

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.19, < 8.0" # 7.19 has the write-only token of a Slack channel
    }
  }

  # State is shared and kept in a bucket that Terraform does not manage; its name is
  # given to init. See README.md.
  backend "gcs" {}
}

# On everything that takes labels; alerts and channels take theirs as user_labels.
locals {
  labels = {
    app         = "phasegate"
    pipeline    = substr(local.pipeline.name, 0, 63)
    environment = var.prefix == "" ? "production" : trimsuffix(var.prefix, "-")
  }
}

provider "google" {
  project        = var.project
  region         = var.region
  default_labels = local.labels
}

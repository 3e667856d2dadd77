terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.19, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

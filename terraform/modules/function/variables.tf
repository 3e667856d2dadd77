variable "project" {
  description = "Project of the function."
  type        = string
}

variable "region" {
  description = "Region of the function."
  type        = string
}

variable "prefix" {
  description = "Put before every name."
  type        = string
}

variable "name" {
  description = "Name under which the function registers itself: its folder in functions/."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{1,12}$", var.name))
    error_message = "name: ${var.name} is not 1 to 12 lower-case letters; account ids are made of it."
  }
}

variable "description" {
  description = "Purpose of the function."
  type        = string
}

variable "archive" {
  description = "Path of the archive, NAME-HASH.zip."
  type        = string
}

variable "bucket" {
  description = "Bucket that archives are uploaded to."
  type        = string
}

variable "build_agent" {
  description = "Id of the service account that builds the function."
  type        = string
}

variable "memory" {
  description = "Memory of an instance, such as 256M."
  type        = string
}

variable "cpu" {
  description = "CPUs of an instance."
  type        = string
}

variable "concurrency" {
  description = "Requests that an instance handles at once."
  type        = number
}

variable "timeout" {
  description = "Seconds that a request may take. An event function's real limit is the ack deadline of 600 s."
  type        = number

  validation {
    condition     = var.timeout <= 540
    error_message = "timeout: ${var.timeout} is more than 540 seconds."
  }
}

variable "max_instances" {
  description = "Instances at once. A limit of cost, not a lock."
  type        = number
}

variable "environment" {
  description = "Environment variables."
  type        = map(string)
}

variable "secrets" {
  description = "Environment variables that hold secrets: the id of each one's secret, and its version."
  type        = map(object({ secret = string, version = string }))
  default     = {}
}

variable "viewers" {
  description = "People who may call the function, besides what delivers to it."
  type        = set(string)
  default     = []
}

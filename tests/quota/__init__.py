"""Project quotas on a kernel that has them: a small guest of Debian's kernel, in which the real code runs."""

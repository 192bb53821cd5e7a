# SPDX-License-Identifier: Apache-2.0
"""What has to hold before a registered version may be called production, and for as long as it is."""

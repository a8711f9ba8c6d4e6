"""Removing channels for good: which belong together, which are worth least, what that buys, and doing it."""

from ovyolo.compress.channels.apply import apply_plan, masked
from ovyolo.compress.channels.costs import Costs, LayerCost, costs_of
from ovyolo.compress.channels.criteria import CRITERIA, Scores, channel_scores
from ovyolo.compress.channels.groups import Group, Groups, find_groups
from ovyolo.compress.channels.measure import layer_times, profile_network
from ovyolo.compress.channels.plan import Plan, amounts_of, plan_pruning
from ovyolo.compress.channels.profile import LayerTime, Profile
from ovyolo.compress.channels.recalibrate import recalibrate
from ovyolo.compress.channels.sensitivity import limits_from, sensitivity
from ovyolo.compress.channels.shrinking import Amounts
from ovyolo.compress.channels.speedup import Measured, measured_speedup, plan_for_speedup
from ovyolo.compress.channels.target import Target, schedule

__all__ = [
    "CRITERIA",
    "Amounts",
    "Costs",
    "Group",
    "Groups",
    "LayerCost",
    "LayerTime",
    "Measured",
    "Plan",
    "Profile",
    "Scores",
    "Target",
    "amounts_of",
    "apply_plan",
    "channel_scores",
    "costs_of",
    "find_groups",
    "layer_times",
    "limits_from",
    "masked",
    "measured_speedup",
    "plan_for_speedup",
    "plan_pruning",
    "profile_network",
    "recalibrate",
    "schedule",
    "sensitivity",
]

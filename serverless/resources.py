"""Generate .chalice/policy-STAGE.json and resources.json from .chalice/config.json.

Run it with ``make serverless`` after a change of a table's name or a model; a test fails if the
files are out of date. The deployed function does not contain it.
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from chatledger.http.api import CORS_RESPONSE_HEADERS
from chatledger.http.chalice import TIME_LIMIT
from chatledger.models.bedrock import arns
from chatledger.stores.dynamodb import policy as dynamodb_policy
from chatledger.stores.dynamodb.provisioning import TABLE_DEFINITION, TTL_ATTRIBUTE

HERE = Path(__file__).parent
CONFIG = Path(".chalice", "config.json")
RETAINED_STAGE = "prod"
"""The stage whose table stays when the stack is deleted."""

CHATBOT_STATEMENTS = ("ChatledgerRuns", "ChatledgerLists")
"""The statements of the table's policy that the API needs. CloudFormation or an operator creates
the table, and only ``sweep`` and copying scan it."""

Json = dict[str, Any]


def generated_files(config: Json) -> dict[Path, Json]:
    """Return the content of each generated file, by its path."""
    contents = {
        Path(".chalice", f"policy-{stage}.json"): policy(config, stage)
        for stage in config["stages"]
    }
    return contents | {Path("resources.json"): resources(config)}


def _function_name(config: Json, stage: str) -> str:
    """Return the name that ``chalice deploy`` gives the function."""
    return f"{config['app_name']}-{stage}"


def _variables(config: Json, stage: str) -> dict[str, str]:
    merged: dict[str, str] = {}
    for part in (config, config["stages"][stage]):
        merged |= part.get("environment_variables", {})
    return merged


def _table(config: Json, stage: str) -> str:
    url = _variables(config, stage).get("CHATLEDGER_STORE", "")
    if not url.startswith("dynamodb://"):
        raise SystemExit(f"The stage {stage} needs a CHATLEDGER_STORE such as dynamodb://TABLE.")
    return urlsplit(url).netloc


# Policies -------------------------------------------------------------------------------------


def policy(config: Json, stage: str) -> Json:
    """Return the IAM policy of the function of ``stage``."""
    variables = _variables(config, stage)
    name = _table(config, stage)
    (region,) = parse_qs(urlsplit(variables["CHATLEDGER_STORE"]).query).get("region", ["*"])
    table = dynamodb_policy(f"arn:aws:dynamodb:{region}:*:table/{name}")
    statements = [
        statement for statement in table["Statement"] if statement["Sid"] in CHATBOT_STATEMENTS
    ]
    if model_arns := [arn for model in _bedrock_models(variables) for arn in arns(model)]:
        # Models are streamed, even if the response is not: https://docs.aws.amazon.com/bedrock/
        # latest/APIReference/API_runtime_ConverseStream.html
        actions = ["bedrock:InvokeModelWithResponseStream"]
        statements.append(_allow("ChatledgerInvokes", actions, list(dict.fromkeys(model_arns))))
    group = f"arn:aws:logs:*:*:log-group:/aws/lambda/{_function_name(config, stage)}"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    statements.append(_allow("ChatledgerLogs", actions, [group, f"{group}:*"]))
    if config["stages"][stage].get("xray", config.get("xray")):
        actions = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
        statements.append(
            _allow("ChatledgerTraces", actions, "*")
        )  # X-Ray supports no narrower one
    return {"Version": "2012-10-17", "Statement": statements}


def _policy_in_stack(config: Json, stage: str) -> Json:
    """Return the policy with the region and account of the stack, which only CloudFormation knows.

    ``chalice deploy`` passes the file of ``policy`` to AWS as it is.
    """

    def locate(resource: str) -> str | Json:
        parts = resource.split(":", 5)
        if parts[4:5] != ["*"]:
            return resource  # no ARN, or a foundation model, which belongs to no account
        _, _, service, region, _, rest = parts
        region = "${AWS::Region}" if region == "*" else region
        return {"Fn::Sub": f"arn:${{AWS::Partition}}:{service}:{region}:${{AWS::AccountId}}:{rest}"}

    document = policy(config, stage)
    for statement in document["Statement"]:
        given = statement["Resource"]
        is_one = isinstance(given, str)
        statement["Resource"] = locate(given) if is_one else [locate(each) for each in given]
    return document


def _bedrock_models(variables: dict[str, str]) -> Iterator[str]:
    names = [
        variables.get("CHATLEDGER_MODEL", ""),
        *variables.get("CHATLEDGER_MODELS", "").split(","),
    ]
    for name in names:
        provider, _, model = name.strip().partition(":")
        if provider == "bedrock":
            yield model


def _allow(sid: str, actions: list[str], resource: str | list[str]) -> Json:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}


# Resources ------------------------------------------------------------------------------------


def resources(config: Json) -> Json:
    """Return the resources that ``chalice package --merge-template`` adds to its own template.

    One file serves all stages, so CloudFormation receives the stage as a parameter.
    """
    stages = list(config["stages"])
    tables = {_logical_name(stage): _table_resource(config, stage) for stage in stages}
    policies = [_stage_policy(config, stage) for stage in stages]
    function = {"Fn::Sub": f"{config['app_name']}-${{Stage}}"}
    group = {"Fn::Sub": f"/aws/lambda/{config['app_name']}-${{Stage}}"}
    return {
        "Parameters": {
            "Stage": {
                "Type": "String",
                "AllowedValues": stages,
                "Description": "The packaged stage, as given to chalice package --stage.",
            },
            "AlarmTopic": {
                "Type": "String",
                "Default": "",
                "Description": "The ARN of the SNS topic that alarms notify; empty for none.",
            },
        },
        "Mappings": {"LogDays": {stage: {"Days": _log_days(stage)} for stage in stages}},
        "Conditions": {
            **{_condition(stage): {"Fn::Equals": [{"Ref": "Stage"}, stage]} for stage in stages},
            "HasAlarmTopic": {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopic"}, ""]}]},
        },
        "Resources": {
            # A function that is called before its log group exists creates one without retention.
            "APIHandler": {"DependsOn": "LogGroup", "Properties": {"FunctionName": function}},
            # Chalice's own setting, log_retention_in_days, is no use here: chalice package refers
            # to a function that does not exist, chalice deploy to a group that is never written to.
            "LogGroup": {
                "Type": "AWS::Logs::LogGroup",
                "Properties": {
                    "LogGroupName": group,
                    "RetentionInDays": {"Fn::FindInMap": ["LogDays", {"Ref": "Stage"}, "Days"]},
                },
            },
            # SAM writes these into the API's definition, so that they are deployed with it.
            "RestAPI": {"Properties": {"GatewayResponses": _gateway_responses()}},
            "ApiHandlerRole": {"Properties": {"Policies": policies}},
            **tables,
            **_alarms(config),
        },
    }


def _stage_policy(config: Json, stage: str) -> Json:
    document = _policy_in_stack(config, stage)
    named = {"PolicyName": "ApiHandlerRolePolicy", "PolicyDocument": document}
    return {"Fn::If": [_condition(stage), named, {"Ref": "AWS::NoValue"}]}


def _log_days(stage: str) -> int:
    return 90 if stage == RETAINED_STAGE else 14


def _condition(stage: str) -> str:
    return f"Is{_title(stage)}"


def _logical_name(stage: str) -> str:
    return f"Conversations{_title(stage)}"


def _title(stage: str) -> str:
    """Return the stage in the form CloudFormation allows in names: letters and digits only."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", stage))


def _table_resource(config: Json, stage: str) -> Json:
    is_retained = stage == RETAINED_STAGE
    deletion_policy = "Retain" if is_retained else "Delete"
    return {
        "Type": "AWS::DynamoDB::Table",
        "Condition": _condition(stage),
        "DeletionPolicy": deletion_policy,
        "UpdateReplacePolicy": deletion_policy,
        "Properties": {
            "TableName": _table(config, stage),
            "BillingMode": "PAY_PER_REQUEST",
            **TABLE_DEFINITION,
            "TimeToLiveSpecification": {"AttributeName": TTL_ATTRIBUTE, "Enabled": True},
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            "DeletionProtectionEnabled": is_retained,
        },
    }


def _gateway_responses() -> Json:
    """Return the responses API Gateway sends without the function, in the form of the API."""

    def response(status: int | None, code: str, sentence: str, **headers: str) -> Json:
        own_headers = {name.replace("_", "-"): f"'{value}'" for name, value in headers.items()}
        return {
            **({} if status is None else {"StatusCode": status}),
            "ResponseTemplates": {
                "application/json": json.dumps({"error": sentence, "code": code})
            },
            "ResponseParameters": {
                "Headers": {
                    "Access-Control-Allow-Origin": "'*'",
                    "Access-Control-Expose-Headers": f"'{', '.join(CORS_RESPONSE_HEADERS)}'",
                }
                | own_headers
            },
        }

    not_signed_in = response(401, "not_signed_in", "Sign in first.", WWW_Authenticate="Bearer")
    return {
        "DEFAULT_4XX": response(None, "refused", "The request was refused."),
        "DEFAULT_5XX": response(
            None, "internal_error", "Something went wrong on the server; try again later."
        ),
        "UNAUTHORIZED": not_signed_in,
        "EXPIRED_TOKEN": not_signed_in,
        "MISSING_AUTHENTICATION_TOKEN": response(
            404, "no_such_route", "There is nothing at this address."
        ),
        "REQUEST_TOO_LARGE": response(413, "too_large", "The request is too large."),
        "THROTTLED": response(
            429,
            "too_many_requests",
            "There is too much to do; try again in a moment.",
            Retry_After="1",
        ),
        "INTEGRATION_TIMEOUT": response(
            504, "timed_out", "It took too long; try again.", Retry_After="5"
        ),
    }


def _alarms(config: Json) -> Json:
    # The longest successful request is a turn that reached its time limit.
    milliseconds = int(TIME_LIMIT / timedelta(milliseconds=1))

    def alarm(description: str, namespace: str, dimensions: Json, **rule: Any) -> Json:
        actions = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopic"}], {"Ref": "AWS::NoValue"}]}
        return {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmDescription": description,
                "Namespace": namespace,
                "Dimensions": [
                    {"Name": name, "Value": value} for name, value in dimensions.items()
                ],
                "Period": 300,
                "TreatMissingData": "notBreaching",
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "AlarmActions": actions,
                "OKActions": actions,
                **rule,
            },
        }

    function = {"FunctionName": {"Ref": "APIHandler"}}
    api = {"ApiName": config["app_name"], "Stage": {"Ref": "Stage"}}
    once = {"Statistic": "Sum", "Threshold": 1, "EvaluationPeriods": 1}
    return {
        "ErrorsAlarm": alarm(
            "The function failed: it raised an error or timed out.",
            "AWS/Lambda",
            function,
            MetricName="Errors",
            **once,
        ),
        "ThrottlesAlarm": alarm(
            "Requests were throttled: no instance of the function was free.",
            "AWS/Lambda",
            function,
            MetricName="Throttles",
            **once,
        ),
        "DurationAlarm": alarm(
            "One request in twenty takes almost the whole time limit, or is cut off by it.",
            "AWS/Lambda",
            function,
            MetricName="Duration",
            ExtendedStatistic="p95",
            Threshold=milliseconds - 1000,
            EvaluationPeriods=3,
        ),
        # The function responds to most failures itself; Lambda does not count those as errors.
        "FailuresAlarm": alarm(
            "Users received five server errors (5xx) within five minutes.",
            "AWS/ApiGateway",
            api,
            MetricName="5XXError",
            Statistic="Sum",
            Threshold=5,
            EvaluationPeriods=1,
        ),
    }


def main() -> None:
    config = json.loads((HERE / CONFIG).read_text(encoding="utf-8"))
    for path, content in generated_files(config).items():
        (HERE / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

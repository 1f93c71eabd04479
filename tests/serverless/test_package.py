"""Chalice's packages of serverless/: the CloudFormation templates, and the function they deploy."""

import base64
import hashlib
import json
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from zipfile import ZipFile

import boto3
import httpx
import pytest

from chatledger.http.api import PUBLIC_PATHS
from chatledger.http.chalice import TIME_LIMIT
from chatledger.models.bedrock import arns
from chatledger.models.bedrock import policy as bedrock_policy
from chatledger.stores.dynamodb import check_table
from chatledger.stores.dynamodb import policy as dynamodb_policy
from chatledger.testing.dynamodb_local import KEY, DynamoDBLocal
from chatledger.testing.dynamodb_local import REGION as LOCAL_REGION
from tests.http.client import (
    conversation_ids,
    conversation_path,
    delete_conversation,
    expect_error,
    list_conversations,
    new_user,
    read_conversation,
    send_message,
)
from tests.http.tokens import auth_headers, key_server
from tests.serverless.gateway import SERVERLESS, Gateway
from tests.serverless.moto_server import simulated_aws
from tests.serverless.packages import (
    REGION,
    SIGN_IN,
    STAGES,
    PackagedFunction,
    build_project,
    configure_sign_in,
    lint_templates,
    run_chalice,
    running_package,
)
from tests.serverless.tables import RESOURCES, created_table, resources_of_type, stage_table

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Fields = dict[str, Any]

MEGABYTE = 1024 * 1024
TOP_LEVEL_NAMES = {
    *("app.py", "chalicelib", "chalice", "chatledger", "msgspec"),
    *("joserfc", "cryptography", "cffi", "_cffi_backend", "pycparser"),
}
"""All that a package may hold at its top level."""

runs_here = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="The package is for AWS Lambda's Linux.",
)
each_stage = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_project(tmp_path_factory.mktemp("project"), "chalice")


@pytest.fixture(scope="module")
def packages(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run ``chalice package`` for each stage, and return the folders of its output."""
    folders = {}
    for stage in STAGES:
        folder = tmp_path_factory.mktemp(stage)
        options = ["--stage", stage, "--merge-template", "resources.json"]
        printed = run_chalice(project, "package", *options, str(folder))
        assert "Could not install" not in printed, printed
        folders[stage] = folder
    return folders


@pytest.fixture
def template(stage: str, packages: dict[str, Path]) -> Fields:
    return template_in(packages[stage])


def template_in(package: Path) -> Fields:
    found: Fields = json.loads((package / "sam.json").read_text())
    return found


@pytest.fixture(scope="module")
def config() -> Fields:
    found: Fields = json.loads((SERVERLESS / ".chalice" / "config.json").read_text())
    return found


def environment_of(template: Fields) -> dict[str, str]:
    found = template["Resources"]["APIHandler"]["Properties"]["Environment"]["Variables"]
    return cast("dict[str, str]", found)


# The generated files ------------------------------------------------------------------------------


def test_the_generated_policies_and_resources_are_up_to_date(project: Path) -> None:
    """``make serverless`` generates them from .chalice/config.json."""
    generated = [Path("resources.json"), *(Path(".chalice", f"policy-{s}.json") for s in STAGES)]
    for path in generated:
        assert (SERVERLESS / path).read_text() == (project / path).read_text(), path


@each_stage
def test_a_policy_is_that_of_the_store_and_bedrock_for_its_stage(
    stage: str, config: Fields
) -> None:
    variables = config["stages"][stage]["environment_variables"]
    table = urlsplit(variables["CHATLEDGER_STORE"]).netloc
    expected = [
        statement
        for statement in dynamodb_policy(f"arn:aws:dynamodb:*:*:table/{table}")["Statement"]
        # The deployment creates the table, and only sweep and copying scan it.
        if statement["Sid"] in ("ChatledgerRuns", "ChatledgerLists")
    ]
    (streamed_or_not,) = bedrock_policy(
        arns(variables["CHATLEDGER_MODEL"].removeprefix("bedrock:"))
    )["Statement"]
    # Models are streamed, even if the response is not.
    expected.append(streamed_or_not | {"Action": ["bedrock:InvokeModelWithResponseStream"]})
    found = policy_of(stage, config)["Statement"]
    assert found[: len(expected)] == expected
    assert {statement["Sid"] for statement in found[len(expected) :]} == {
        "ChatledgerLogs",
        "ChatledgerTraces",
    }


@each_stage
def test_a_policy_names_only_resources_of_its_stage(stage: str, config: Fields) -> None:
    (other,) = set(STAGES) - {stage}
    for statement in policy_of(stage, config)["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert f"chatledger-{other}" not in resource
            if statement["Sid"] == "ChatledgerTraces":
                assert resource == "*"
            else:
                # The policy is written before its region and account are known.
                assert "*" not in resource.split(":", 5)[5].removesuffix(":*"), resource


def policy_of(stage: str, config: Fields) -> Fields:
    path = SERVERLESS / ".chalice" / config["stages"][stage]["iam_policy_file"]
    found: Fields = json.loads(path.read_text())
    return found


# The template -------------------------------------------------------------------------------------


def test_cfn_lint_reports_nothing_about_the_templates(packages: dict[str, Path]) -> None:
    templates = [packages[stage] / "sam.json" for stage in STAGES]
    lint_templates(*templates)


@each_stage
def test_the_function_has_the_settings_and_the_policy_of_its_stage(
    stage: str, template: Fields, config: Fields
) -> None:
    function = template["Resources"]["APIHandler"]["Properties"]
    assert environment_of(template).items() >= {
        ("CHATLEDGER_STORE", f"dynamodb://chatledger-{stage}?patience=2s"),
        ("CHATLEDGER_EXPIRE_AFTER", "30d"),
    }
    assert function["Timeout"] <= 29  # API Gateway waits no longer
    assert function["Tracing"] == "Active"
    assert ("ReservedConcurrentExecutions" in function) == (stage == "prod")
    document = stage_policy(template, stage)
    assert anywhere(document) == policy_of(stage, config)
    # Only foundation models, which belong to no account, may be in any region.
    assert re.findall(r'"arn:aws:(\w+):\*', json.dumps(document)) == ["bedrock"]


def stage_policy(template: Fields, stage: str) -> Fields:
    """Return the policy that the function gets if CloudFormation's parameter is ``stage``."""
    (role,) = resources_of_type(template, "IAM::Role").values()
    policies = [policy["Fn::If"] for policy in role["Properties"]["Policies"]]
    (document,) = [
        policy["PolicyDocument"]
        for condition, policy, _ in policies
        if template["Conditions"][condition] == {"Fn::Equals": [{"Ref": "Stage"}, stage]}
    ]
    return cast(Fields, document)


def anywhere(value: Any) -> Any:
    """Return the policy with ``*`` in place of the stack's region and account."""
    if isinstance(value, list):
        return [anywhere(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"Fn::Sub"}:
        place = "${AWS::Region}:${AWS::AccountId}"
        assert f":{place}:" in value["Fn::Sub"]
        return value["Fn::Sub"].replace(place, "*:*").replace("${AWS::Partition}", "aws")
    return {name: anywhere(each) for name, each in value.items()}


@each_stage
def test_the_table_has_the_configured_name_and_prod_retains_it(
    stage: str, template: Fields
) -> None:
    table = stage_table(template, stage)
    assert table == stage_table(RESOURCES, stage)
    properties = table["Properties"]
    assert urlsplit(environment_of(template)["CHATLEDGER_STORE"]).netloc == properties["TableName"]
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    is_retained = stage == "prod"
    assert properties["DeletionProtectionEnabled"] is is_retained
    deletion_policy = "Retain" if is_retained else "Delete"
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == (
        deletion_policy,
        deletion_policy,
    )


@each_stage
def test_api_gateways_own_responses_have_the_form_of_the_api(stage: str, template: Fields) -> None:
    responses = template["Resources"]["RestAPI"]["Properties"]["GatewayResponses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} <= responses.keys()
    for response in responses.values():
        body = json.loads(response["ResponseTemplates"]["application/json"])
        answer = httpx.Response(response.get("StatusCode", 400), json=body)
        expect_error(answer, answer.status_code)
        headers = response["ResponseParameters"]["Headers"]
        assert headers["Access-Control-Allow-Origin"] == "'*'"
    assert responses["UNAUTHORIZED"]["ResponseParameters"]["Headers"]["WWW-Authenticate"]


@each_stage
def test_errors_throttles_and_duration_raise_alarms_and_logs_expire(
    stage: str, template: Fields
) -> None:
    alarms = resources_of_type(template, "CloudWatch::Alarm").values()
    metrics = {alarm["Properties"]["MetricName"] for alarm in alarms}
    assert {"Errors", "Throttles", "Duration", "5XXError"} <= metrics
    (slow,) = [alarm for alarm in alarms if alarm["Properties"]["MetricName"] == "Duration"]
    # A turn that reaches its time limit takes this long, and triggers the alarm.
    assert slow["Properties"]["Threshold"] < TIME_LIMIT / timedelta(milliseconds=1)
    (group,) = resources_of_type(template, "Logs::LogGroup").values()
    name = group["Properties"]["LogGroupName"]["Fn::Sub"]
    function = template["Resources"]["APIHandler"]["Properties"]["FunctionName"]["Fn::Sub"]
    assert name == f"/aws/lambda/{function}"
    assert template["Mappings"]["LogDays"][stage]["Days"] <= 90


def test_with_a_user_pool_api_gateway_requires_sign_in(project: Path, tmp_path: Path) -> None:
    pool = "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_aBcDeFgHi"
    configured = tmp_path / "serverless"
    shutil.copytree(project, configured, ignore=shutil.ignore_patterns("vendor"))
    users = {"CHATLEDGER_COGNITO_USER_POOL": pool, "CHATLEDGER_JWT_AUDIENCE": "1example23456789"}
    configure_sign_in(configured, "prod", SIGN_IN | users)
    options = ["--stage", "prod", "--merge-template", "resources.json"]
    run_chalice(configured, "package", *options, str(tmp_path / "made"))
    lint_templates(tmp_path / "made" / "sam.json")
    template = template_in(tmp_path / "made")
    definition = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    authorizer = definition["securityDefinitions"]["users"]["x-amazon-apigateway-authorizer"]
    assert authorizer == {"type": "cognito_user_pools", "providerARNs": [pool]}
    for address, methods in definition["paths"].items():
        for operation in methods.values():
            security = operation.get("security")
            assert security == (None if address in PUBLIC_PATHS else [{"users": []}]), address
    assert environment_of(template)["CHATLEDGER_COGNITO_USER_POOL"] == pool


@each_stage
def test_a_stage_is_not_packaged_before_its_operator_decides_who_may_use_it(
    stage: str, project: Path, config: Fields, tmp_path: Path
) -> None:
    assert config["stages"][stage]["environment_variables"].items() >= SIGN_IN.items()
    shipped = tmp_path / "serverless"
    shutil.copytree(project, shipped, ignore=shutil.ignore_patterns("vendor"))
    configure_sign_in(shipped, stage, SIGN_IN)
    with pytest.raises(AssertionError, match="CHATLEDGER_JWT_ISSUER is missing"):
        run_chalice(shipped, "package", "--stage", stage, str(tmp_path / "made"))


# The table of the template ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@each_stage
def test_the_table_is_as_the_store_requires(
    stage: str, template: Fields, client: "DynamoDBClient"
) -> None:
    with created_table(client, stage_table(template, stage), ttl=True) as name:
        check_table(client, name)


# The package --------------------------------------------------------------------------------------


@each_stage
def test_the_package_holds_only_what_is_needed_and_is_small(
    stage: str, packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    package = packages[stage] / "deployment.zip"
    with ZipFile(package) as archive:
        top_level = {name.partition("/")[0] for name in archive.namelist()}
        unpacked = sum(entry.file_size for entry in archive.infolist())
        compiled = [name for name in archive.namelist() if "chatledger/http/__pycache__/" in name]
    names = sorted(name for name in top_level if not name.endswith(".dist-info"))
    size = package.stat().st_size
    with capsys.disabled():
        megabytes = f"{size / MEGABYTE:.1f} MB, {unpacked / MEGABYTE:.1f} MB unpacked"
        print(f"\nThe package of {stage} ({megabytes}): {', '.join(names)}.")
    assert {name.partition(".cpython")[0] for name in names} == TOP_LEVEL_NAMES
    assert compiled  # otherwise every cold start on Lambda would compile them
    assert size < 50 * MEGABYTE
    assert unpacked < 250 * MEGABYTE


@contextmanager
def package_client(
    package: Path, folder: Path, **variables: str
) -> Iterator[tuple[httpx.Client, PackagedFunction]]:
    """Yield a client of the packaged function behind API Gateway, and the function."""
    with (
        running_package(package, folder, **variables) as function,
        Gateway(function.app, stage="dev").client() as client,
    ):
        yield client, function


OFFLINE = {"CHATLEDGER_MODEL": "offline", "CHATLEDGER_OFFLINE_PACE": "0"}


def check_a_conversation(client: httpx.Client) -> None:
    user = new_user()
    assert client.get("/health").status_code == 200
    conversation_id = send_message(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    answer = send_message(client, "What is my name?", user_id=user, conversation_id=conversation_id)
    assert "Bob" in answer["response"]
    assert len(read_conversation(client, conversation_id, user_id=user)["messages"]) == 4
    assert conversation_ids(list_conversations(client, user_id=user)) == [conversation_id]
    delete_conversation(client, conversation_id, user_id=user)
    expect_error(client.get(conversation_path(conversation_id)), 404)


@runs_here
@each_stage
def test_the_package_needs_nothing_outside_it(
    stage: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    variables = environment_of(template_in(packages[stage])) | OFFLINE
    variables["CHATLEDGER_STORE"] = f"sqlite:///{tmp_path / 'chatledger.db'}"
    package = packages[stage] / "deployment.zip"
    with package_client(package, tmp_path, **variables) as (client, function):
        check_a_conversation(client)
        standard_library = Path(json.__file__).parents[1].resolve()
        for file in function.stop():
            assert {tmp_path, standard_library} & {*file.resolve().parents}, file


@runs_here
def test_the_package_uses_the_dynamodb_table_of_its_template(
    packages: dict[str, Path],
    tmp_path: Path,
    client: "DynamoDBClient",
    dynamodb_local: DynamoDBLocal,
) -> None:
    template = template_in(packages["prod"])
    variables = environment_of(template) | OFFLINE
    with created_table(client, stage_table(template, "prod"), ttl=True) as name:
        query = f"region={LOCAL_REGION}&endpoint={dynamodb_local.endpoint}"
        variables |= {
            "CHATLEDGER_STORE": f"dynamodb://{name}?{query}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
        }
        package = packages["prod"] / "deployment.zip"
        with package_client(package, tmp_path, **variables) as (http, _):
            check_a_conversation(http)
            send_message(http, "Hi", user_id=new_user())
        expiring = [item for item in client.scan(TableName=name)["Items"] if "expires_at" in item]
        assert expiring  # CHATLEDGER_EXPIRE_AFTER


@runs_here
def test_users_sign_in_to_the_package(packages: dict[str, Path], tmp_path: Path) -> None:
    package = packages["dev"] / "deployment.zip"
    store = f"sqlite:///{tmp_path / 'chatledger.db'}"
    with (
        key_server() as keys,
        package_client(package, tmp_path, CHATLEDGER_STORE=store, **OFFLINE, **keys.settings) as (
            client,
            _,
        ),
    ):
        answer = client.post("/chat", json={"message": "Hi"})
        expect_error(answer, 401)
        assert "Bearer" in answer.headers["WWW-Authenticate"]
        answer = client.post("/chat", json={"message": "Hi"}, headers=auth_headers("bob"))
        path = conversation_path(answer.json()["conversation_id"])
        assert client.get(path, headers=auth_headers("bob")).status_code == 200
        expect_error(client.get(path, headers=auth_headers("eve")), 404)


# chalice deploy -----------------------------------------------------------------------------------


@runs_here
def test_deploying_again_updates_and_deleting_leaves_nothing(
    project: Path, packages: dict[str, Path], tmp_path: Path, config: Fields
) -> None:
    with simulated_aws() as url:

        def connect(service: str) -> Any:
            return boto3.client(  # type: ignore[call-overload]
                service,
                endpoint_url=url,
                region_name=REGION,
                aws_access_key_id="chatledger",
                aws_secret_access_key="chatledger",
            )

        functions, gateway, roles = connect("lambda"), connect("apigateway"), connect("iam")
        addresses = set()
        for _ in range(2):
            run_chalice(project, "deploy", "--stage", "prod", AWS_ENDPOINT_URL=url)
            (api,) = gateway.get_rest_apis()["items"]
            (stage,) = gateway.get_stages(restApiId=api["id"])["item"]
            assert stage["stageName"] == "prod"
            addresses.add(api["id"])
            assert_deployed(functions, roles, policy_of("prod", config))
        assert len(addresses) == 1
        (function,) = functions.list_functions()["Functions"]
        package = deployed_package(project, function["CodeSha256"])
        variables = function["Environment"]["Variables"] | OFFLINE
        variables["CHATLEDGER_STORE"] = f"sqlite:///{tmp_path / 'chatledger.db'}"
        with package_client(package, tmp_path, **variables) as (client, _):
            check_a_conversation(client)

        run_chalice(project, "delete", "--stage", "prod", AWS_ENDPOINT_URL=url)
        assert gateway.get_rest_apis()["items"] == []
        assert functions.list_functions()["Functions"] == []
        assert roles.list_roles()["Roles"] == []
        for client_of_aws in (functions, gateway, roles):
            client_of_aws.close()


def assert_deployed(functions: Any, roles: Any, policy: Mapping[str, Any]) -> None:
    (function,) = functions.list_functions()["Functions"]
    assert function["FunctionName"] == "chatledger-prod"
    store = function["Environment"]["Variables"]["CHATLEDGER_STORE"]
    assert store == "dynamodb://chatledger-prod?patience=2s"
    assert function["TracingConfig"]["Mode"] == "Active"
    concurrency = functions.get_function_concurrency(FunctionName="chatledger-prod")
    assert concurrency["ReservedConcurrentExecutions"] > 0
    role = function["Role"].rpartition("/")[2]
    (name,) = roles.list_role_policies(RoleName=role)["PolicyNames"]
    assert roles.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] == policy


def deployed_package(project: Path, code_sha256: str) -> Path:
    """Return the local package with the checksum that AWS reports for the deployed one."""
    (found,) = [
        package
        for package in (project / ".chalice" / "deployments").glob("*.zip")
        if base64.b64encode(hashlib.sha256(package.read_bytes()).digest()).decode() == code_sha256
    ]
    return found
